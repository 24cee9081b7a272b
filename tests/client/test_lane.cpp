// A session over several engine processes.
#include "client/lane.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace shmgemm;

SessionOptions options(std::uint32_t devices, std::uint32_t processes) {
  SessionOptions result;
  result.engine_path = SHMGEMM_ENGINE_PATH;
  result.region_bytes = 16 << 20;
  result.devices = devices;
  result.processes = processes;
  result.parameters = {{"model", "scalesim_ws"}, {"rows", "8"}, {"cols", "4"}, {"clock", "1GHz"}};
  return result;
}

std::string why(const SessionOptions& given) {
  try {
    Session::open(given);
  } catch (const Unsupported& error) {
    return error.what();
  }
  return "it opened";
}

struct Times {
  std::vector<std::uint64_t> cycles;
  std::vector<float> bits;
};

// Blocking products and a batch on devices by a fixed dice.
Times script(Session& session, std::uint32_t devices) {
  Times times;
  std::mt19937 random(7);
  const auto note = [&times](const shmgemm_completion& completion) {
    times.cycles.insert(times.cycles.end(),
                        {completion.device, completion.start_cycles, completion.end_cycles});
  };
  std::vector<std::vector<float>> kept;
  const auto call_of = [&](std::uint32_t size) {
    GemmCall call;
    call.m = call.n = call.k = size;
    call.device = static_cast<std::uint8_t>(random() % devices);
    std::vector<float> a(size * size);
    for (float& x : a) x = static_cast<float>(random() % 1000) / 7.0f;
    kept.push_back(std::move(a));
    kept.emplace_back(size * size);
    call.a = call.b = {kept[kept.size() - 2].data(), 0, size, 1};
    call.c = {kept.back().data(), 0, size, 1};
    return call;
  };
  for (int i = 0; i < 30; ++i) note(session.gemm(call_of(1 + random() % 40)));
  std::vector<GemmCall> batch;
  for (int i = 0; i < 20; ++i) batch.push_back(call_of(1 + random() % 40));
  for (const shmgemm_completion& one : session.gemm_batch(batch)) note(one);
  note(session.flush());
  for (std::uint32_t device = 0; device < devices; ++device) {
    note(session.noop(static_cast<std::uint8_t>(device)));
  }
  for (const auto& values : kept) {
    times.bits.insert(times.bits.end(), values.begin(), values.end());
  }
  return times;
}

TEST(Lane, TimesAndBitsAreThoseOfOneEngine) {
  const Times one = script(*Session::open(options(5, 1)), 5);
  for (const std::uint32_t processes : {2u, 3u, 5u}) {
    const Times several = script(*Session::open(options(5, processes)), 5);
    EXPECT_EQ(several.cycles, one.cycles) << processes;
    EXPECT_EQ(several.bits, one.bits) << processes;
  }
}

TEST(Lane, EachEngineHasItsShareOfTheDevices) {
  const auto session = Session::open(options(5, 3));
  const std::vector<int> pids = session->engine_pids();
  EXPECT_EQ(std::set<int>(pids.begin(), pids.end()).size(), 3u);
  EXPECT_EQ(pids[0], session->engine_pid());
  session->noop(4);
  for (std::uint8_t device = 0; device < 5; ++device) {
    EXPECT_EQ(session->info(device).devices, 5u);
    EXPECT_EQ(session->noop(device).device, device);
  }
  EXPECT_THROW(session->noop(5), Unsupported);
  EXPECT_EQ(session->stats().engine_starts, 3u);
  EXPECT_EQ(session->stats().commands, 11u);
}

TEST(Lane, TheRawPathReachesEachEngineAndNoOther) {
  const auto session = Session::open(options(5, 3));
  for (const int device : {0, 1, 2, 3, 4, 5, 6, 7, 8, 255}) {
    shmgemm_command command{};
    command.op = SHMGEMM_OP_ECHO;
    command.device = static_cast<std::uint8_t>(device);
    command.arg[0] = 100 + static_cast<std::uint64_t>(device);
    const std::uint64_t id = session->submit(command);
    const shmgemm_completion completion = session->wait(id);
    EXPECT_EQ(completion.id, id);
    EXPECT_EQ(completion.device, device);
    EXPECT_EQ(completion.status, device < 5 ? SHMGEMM_STATUS_OK : SHMGEMM_STATUS_BAD_DEVICE);
    EXPECT_EQ(completion.busy_cycles, device < 5 ? 100u + static_cast<unsigned>(device) : 0u);
    EXPECT_THROW(session->wait(id), Unsupported);
  }
  EXPECT_THROW(session->wait(1 | 9ull << 56), Unsupported);
}

TEST(Lane, ALostEngineTakesItsOwnDevicesAlone) {
  const auto session = Session::open(options(4, 3));
  const Times before = script(*session, 4);
  const std::uint64_t then = session->noop(1).end_cycles;
  const std::vector<int> pids = session->engine_pids();
  kill(pids[0], SIGSTOP);
  shmgemm_command echo{};
  echo.op = SHMGEMM_OP_NOOP;
  echo.device = 3;  // of engine 0
  const std::uint64_t lost = session->submit(echo);
  kill(pids[0], SIGKILL);
  try {
    session->wait(lost);
    FAIL() << "it was answered";
  } catch (const DeviceLost& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("the engine of devices 0, 3 (pid " + std::to_string(pids[0]) + ")"),
              std::string::npos)
        << text;
  }
  EXPECT_EQ(session->engine_pids(), (std::vector<int>{0, pids[1], pids[2]}));
  EXPECT_EQ(session->noop(1).end_cycles, then);
  EXPECT_EQ(session->noop(2).end_cycles, then);
  EXPECT_EQ(session->noop(3).start_cycles, then) << "time does not go back in a new engine";
  const std::vector<int> now = session->engine_pids();
  EXPECT_NE(now[0], pids[0]);
  EXPECT_EQ(now[1], pids[1]);
  EXPECT_EQ(now[2], pids[2]);
  EXPECT_EQ(session->stats().engine_starts, 4u);
  EXPECT_EQ(script(*session, 4).bits, before.bits);
}

TEST(Lane, TheOthersPartOfABatchIsComputed) {
  const auto session = Session::open(options(2, 2));
  kill(session->engine_pids()[1], SIGSTOP);
  std::vector<float> a(64, 2.0f), here(64), lost(64);
  GemmCall call;
  call.m = call.n = call.k = 8;
  call.a = call.b = {a.data(), 0, 8, 1};
  std::vector<GemmCall> calls(2, call);
  calls[0].c = {lost.data(), 0, 8, 1};
  calls[0].device = 1;
  calls[1].c = {here.data(), 0, 8, 1};
  std::thread killer([pid = session->engine_pids()[1]] {
    usleep(100'000);
    kill(pid, SIGKILL);
  });
  EXPECT_THROW(session->gemm_batch(calls), DeviceLost);
  killer.join();
  EXPECT_EQ(here, std::vector<float>(64, 32.0f));
  session->gemm_batch(calls);
  EXPECT_EQ(lost, here);
}

TEST(Lane, AStreamKeepsItsOrderFromOneEngineToTheNext) {
  std::vector<std::vector<std::uint64_t>> seen;
  for (const std::uint32_t processes : {1u, 2u}) {
    const auto session = Session::open(options(2, processes));
    std::vector<float> a(256, 1.0f);
    std::vector<std::vector<float>> results(8, std::vector<float>(256));
    std::vector<std::shared_ptr<Future>> futures;
    for (std::size_t i = 0; i < results.size(); ++i) {
      GemmCall call;
      call.m = call.n = call.k = 16;
      call.a = call.b = {a.data(), 0, 16, 1};
      call.c = {results[i].data(), 0, 16, 1};
      call.device = static_cast<std::uint8_t>(i % 2);
      call.stream = kFirstStream;
      futures.push_back(session->gemm_async(call));
    }
    seen.emplace_back();
    for (const auto& future : futures) {
      const shmgemm_completion completion = future->result();
      EXPECT_GE(completion.start_cycles, seen.back().empty() ? 0 : seen.back().back());
      seen.back().push_back(completion.start_cycles);
      seen.back().push_back(completion.end_cycles);
    }
    EXPECT_EQ(results[7], std::vector<float>(256, 16.0f));
  }
  EXPECT_EQ(seen[0], seen[1]);
}

TEST(Lane, SaysWhatCannotBe) {
  EXPECT_EQ(why(options(2, 3)),
            "processes = 3, devices = 2: expected at least one device for each process");
  EXPECT_EQ(why(options(9, 9)), "processes = 9: expected 1 to 8");
  EXPECT_EQ(why(options(1, 0)), "processes = 0: expected 1 to 8");
  SessionOptions guest = options(2, 2);
  guest.guest = [](int) { return std::string("127.0.0.1:1"); };
  EXPECT_NE(why(guest).find("device server"), std::string::npos) << why(guest);
  SessionOptions server = options(2, 2);
  server.server = "127.0.0.1:1";
  EXPECT_NE(why(server).find("device server"), std::string::npos) << why(server);
  SessionOptions small = options(8, 8);
  small.region_bytes = 2 << 20;
  EXPECT_NE(why(small).find("2097152"), std::string::npos) << why(small);
  small.region_bytes = 4 << 20;
  EXPECT_EQ(Session::open(small)->engine_pids().size(), 8u);
}

TEST(Lane, ClosingEndsAllOfThem) {
  const auto session = Session::open(options(3, 3));
  const std::vector<int> pids = session->engine_pids();
  session->close();
  for (const int pid : pids) EXPECT_NE(kill(pid, 0), 0);
  EXPECT_THROW(session->noop(2), Closed);
  EXPECT_EQ(session->engine_pids(), std::vector<int>(3, 0));
}

}  // namespace
