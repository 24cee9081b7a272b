// A session with the real engine process.
#include "client/session.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <random>
#include <thread>
#include <vector>

namespace {

using namespace shmgemm;

SessionOptions options() {
  SessionOptions result;
  result.engine_path = SHMGEMM_ENGINE_PATH;
  result.region_bytes = 16 << 20;
  result.parameters = {{"model", "scalesim_ws"}, {"rows", "8"}, {"cols", "4"}, {"clock", "1GHz"}};
  return result;
}

GemmCall call_for(const float* a, const float* b, float* c, std::uint32_t m, std::uint32_t n,
                  std::uint32_t k) {
  GemmCall call;
  call.m = m;
  call.n = n;
  call.k = k;
  call.a = {a, 0, k, 1};
  call.b = {b, 0, n, 1};
  call.c = {c, 0, n, 1};
  return call;
}

std::string why(const SessionOptions& given) {
  try {
    Session::open(given);
  } catch (const Error& error) {
    return error.what();
  }
  return "it opened";
}

TEST(Session, MultipliesAndCounts) {
  const auto session = Session::open(options());
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> a(33 * 65), b(65 * 17), c(33 * 17);
  for (float& x : a) x = normal(random);
  for (float& x : b) x = normal(random);
  const shmgemm_completion done = session->gemm(call_for(a.data(), b.data(), c.data(), 33, 17, 65));
  for (int i = 0; i < 33; ++i) {
    for (int j = 0; j < 17; ++j) {
      double sum = 0;
      for (int k = 0; k < 65; ++k) sum += double{a[i * 65 + k]} * b[k * 17 + j];
      EXPECT_NEAR(c[i * 17 + j], sum, 1e-4);
    }
  }
  EXPECT_EQ(done.end_cycles - done.start_cycles, 2294u);  // PEERS table: 8x4, 33,17,65, ws
  const Stats stats = session->stats();
  EXPECT_EQ(stats.ops, 1u);
  EXPECT_EQ(stats.cycles, 2294u);
  EXPECT_EQ(stats.bytes_copied, (a.size() + b.size() + c.size()) * 4);
  EXPECT_EQ(stats.heap_used_bytes, 0u);
}

TEST(Session, AProfiledProductHasATimelineWhereTheModelGivesOne) {
  SessionOptions machine = options();
  machine.parameters = {{"model", "systolic"}, {"cores", "2"},    {"rows", "8"},
                        {"cols", "4"},         {"clock", "1GHz"}, {"memory_bw", "4GB/s"}};
  const auto session = Session::open(machine);
  std::vector<float> a(33 * 65, 1), b(65 * 17, 1), c(33 * 17);
  session->gemm(call_for(a.data(), b.data(), c.data(), 33, 17, 65));
  session->set_profiling(true);
  session->gemm(call_for(a.data(), b.data(), c.data(), 33, 17, 65));
  const std::vector<OpRecord> records = session->take_records();
  ASSERT_EQ(records.size(), 1u);
  const OpRecord& op = records[0];
  ASSERT_GT(op.start_cycles, 0u) << "times are the engine's, not the op's";
  std::uint64_t loaded = 0, stored = 0, busy[2] = {};
  for (const shmgemm_timeline_entry& entry : op.timeline) {
    EXPECT_GE(entry.start_cycles, op.start_cycles);
    EXPECT_LE(entry.end_cycles, op.end_cycles);
    if (entry.kind == SHMGEMM_ACTIVITY_LOAD) loaded += entry.amount;
    if (entry.kind == SHMGEMM_ACTIVITY_STORE) stored += entry.amount;
    if (entry.kind == SHMGEMM_ACTIVITY_COMPUTE) busy[entry.core] += entry.amount;
  }
  std::uint64_t read = 0;
  for (const std::uint64_t bytes : op.read_bytes[SHMGEMM_LEVEL_MEMORY]) read += bytes;
  EXPECT_EQ(loaded, read);
  EXPECT_EQ(stored, 4u * 33 * 17);
  EXPECT_TRUE(busy[0] == op.busy_cycles || busy[1] == op.busy_cycles) << "of the critical core";
}

TEST(Session, ReplacesALostEngineAndKeepsTensors) {
  const auto session = Session::open(options());
  const auto block = session->allocate(64);
  static_cast<float*>(block->data())[0] = 42.0f;
  const int first = session->engine_pid();
  const std::uint32_t generation = session->generation();
  ASSERT_EQ(kill(first, SIGKILL), 0);
  EXPECT_THROW(
      {
        // The loss may be noticed by this op or before it; a new engine may then serve it at once.
        for (int i = 0; i < 1000; ++i) session->noop();
        if (session->engine_pid() != first) throw DeviceLost("replaced between two ops");
      },
      DeviceLost);
  session->noop();
  EXPECT_NE(session->engine_pid(), first);
  EXPECT_EQ(session->generation(), generation + 1);
  EXPECT_EQ(static_cast<float*>(block->data())[0], 42.0f);
  EXPECT_EQ(session->stats().engine_starts, 2u);
}

TEST(Session, BlocksOutliveIt) {
  auto session = Session::open(options());
  const auto block = session->allocate(4096);
  static_cast<char*>(block->data())[4095] = 7;
  const int engine = session->engine_pid();
  session->close();
  EXPECT_TRUE(session->closed());
  EXPECT_NE(kill(engine, 0), 0);  // gone and reaped
  EXPECT_THROW(session->noop(), Closed);
  session.reset();
  EXPECT_EQ(static_cast<char*>(block->data())[4095], 7);
}

std::string refusal(Session& session, std::uint8_t device) {
  const float one = 1;
  float product = 0;
  GemmCall call = call_for(&one, &one, &product, 1, 1, 1);
  call.device = device;
  try {
    session.gemm(call);
  } catch (const Unsupported& error) {
    return error.what();
  }
  return "it was computed";
}

TEST(Session, NamesADeviceThatIsNotThereAndThoseThatAre) {
  SessionOptions given = options();
  EXPECT_EQ(refusal(*Session::open(given), 1),
            "gemm 1x1 @ 1x1: got sim_device 1; expected 0: the session has one device");
  given.devices = 3;
  const auto session = Session::open(given);
  EXPECT_EQ(refusal(*session, 2), "it was computed");
  EXPECT_EQ(refusal(*session, 255),
            "gemm 1x1 @ 1x1: got sim_device 255; expected 0 to 2: the session has 3 devices");
  EXPECT_THROW(session->info(3), Unsupported);
  EXPECT_THROW(session->reset(3), Unsupported);
  EXPECT_EQ(session->stats().commands, 1u);
}

TEST(Session, AThreadIsToldOnceThatAnotherClosedItsSession) {
  int opened = 0;
  set_session_opener([&opened] {
    ++opened;
    return Session::open(options());
  });
  const auto closed_elsewhere = [](Session& session) {
    std::thread([&session] {
      set_current_session(nullptr);
      session.close();
    }).join();
  };
  current_session()->noop();
  closed_elsewhere(*current_session());
  EXPECT_THROW(current_session(), Closed);
  current_session()->noop();
  EXPECT_EQ(opened, 2);
  const auto own = current_session();
  closed_elsewhere(*own);
  EXPECT_THROW(own->noop(), Closed);  // so this thread knows
  current_session()->noop();
  current_session()->close();  // its own doing
  current_session()->noop();
  EXPECT_EQ(opened, 4);
  closed_elsewhere(*current_session());
  set_current_session(Session::open(options()));
  current_session()->noop();
  EXPECT_EQ(opened, 4);
  set_current_session(nullptr);
  set_session_opener(nullptr);
}

TEST(Session, SaysWhyItCannotStart) {
  SessionOptions missing = options();
  missing.engine_path = "/nonexistent/engine";
  EXPECT_NE(why(missing).find("'/nonexistent/engine'"), std::string::npos) << why(missing);
  SessionOptions quits = options();
  quits.engine_path = "/bin/false";
  EXPECT_NE(why(quits).find("exit status 1"), std::string::npos) << why(quits);
  SessionOptions unknown = options();
  unknown.parameters["warp"] = "9";
  EXPECT_NE(why(unknown).find("warp"), std::string::npos) << why(unknown);
  SessionOptions small = options();
  small.region_bytes = 4096;
  EXPECT_NE(why(small).find("4096"), std::string::npos) << why(small);
}

TEST(Session, AForkedChildCannotUseItAndDoesNoHarm) {
  const auto session = Session::open(options());
  const int engine = session->engine_pid();
  const pid_t child = fork();
  if (child == 0) {
    int code = 1;
    try {
      session->noop();
    } catch (const Closed&) {
      code = 0;
    }
    _exit(code);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  session->noop();
  EXPECT_EQ(session->engine_pid(), engine);
}

TEST(Session, ManyThreadsMultiply) {
  const auto session = Session::open(options());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::vector<float> a(16, static_cast<float>(t)), b(16, 2.0f), c(16);
      for (int i = 0; i < 100; ++i) {
        session->gemm(call_for(a.data(), b.data(), c.data(), 4, 4, 4));
        if (c[5] != 8.0f * static_cast<float>(t)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(session->stats().ops, 600u);
}

TEST(Session, RecordsWhatAProfileAsksFor) {
  const auto session = Session::open(options());
  std::vector<float> a(64, 1.0f), c(64);
  session->gemm(call_for(a.data(), a.data(), c.data(), 8, 8, 8));
  session->set_profiling(true);
  set_scope("encoder.0");
  session->gemm(call_for(a.data(), a.data(), c.data(), 8, 8, 8));
  set_scope("");
  session->set_profiling(false);
  const auto records = session->take_records();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].scope, "encoder.0");
  EXPECT_EQ(records[0].macs, 512u);
  EXPECT_EQ(records[0].folds, 2u);
  EXPECT_EQ(records[0].peak_macs_per_cycle, 32u);
  EXPECT_GT(records[0].mapping_efficiency, 0.99);
  EXPECT_EQ(records[0].busy_cycles + records[0].fill_drain_cycles,
            records[0].end_cycles - records[0].start_cycles);
  EXPECT_TRUE(session->take_records().empty());
}

}  // namespace
