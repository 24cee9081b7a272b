// NOOP commands through a session: latency with the peer polling, sharing one CPU or parked, and
// rate.
#include <sched.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/session.h"
#include "raw_peer.h"
#include "subjects.h"

namespace shmgemm::measure {
namespace {

std::shared_ptr<Session> open_session(const Options& options) {
  SessionOptions session;
  session.engine_path = options.engine_path;
  session.engine_words = options.engine_words;
  session.parameters = options.hardware;
  session.region_bytes = 16u << 20;
  return Session::open(session);
}

// This thread on the first CPU, processes with all their threads on the others: how Linux places
// two processes that wait for each other is not what is measured. Nothing where there is one CPU
// only.
void keep_apart(std::initializer_list<pid_t> processes) {
  cpu_set_t others;
  if (sched_getaffinity(0, sizeof others, &others) != 0 || CPU_COUNT(&others) < 2) return;
  int first = 0;
  while (!CPU_ISSET(first, &others)) ++first;
  CPU_CLR(first, &others);
  for (const pid_t process : processes) {
    const std::string tasks = "/proc/" + std::to_string(process) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      sched_setaffinity(std::stoi(task.path().filename()), sizeof others, &others);
    }
  }
  cpu_set_t own;
  CPU_ZERO(&own);
  CPU_SET(first, &own);
  sched_setaffinity(0, sizeof own, &own);
}

void stay_on_one_cpu() {
  const int cpu = sched_getcpu();
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu < 0 ? 0 : cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) throw Unsupported("cannot stay on one CPU");
}

// Peer and engine share a CPU, but never poll at the same time.
Results noop_polling(const Options& options, bool may_spin) {
  RawPeer peer(may_spin);
  const std::shared_ptr<Session> session = open_session(options);
  keep_apart({session->engine_pid(), peer.pid()});
  Results results;
  for (std::uint64_t round = 0; round < options.rounds; ++round) {
    for (int warm = 0; warm < 200; ++warm) session->noop();
    results.ours(time_round(options.samples, [&] { session->noop(); }));
    peer.set_mode(RawPeer::Mode::kPoll);
    for (int warm = 0; warm < 200; ++warm) peer.round_trip();
    results.floor(time_round(options.samples, [&] { peer.round_trip(); }));
    peer.set_mode(RawPeer::Mode::kSleep);
  }
  return results;
}

void let_it_park() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

template <class Call>
Round time_parked(std::uint64_t count, Call&& call) {
  std::vector<double> samples(count);
  for (double& sample : samples) {
    let_it_park();
    const double start = now_us();
    call();
    sample = now_us() - start;
  }
  return round_of(std::move(samples));
}

// Batches of `depth` commands: all are submitted, the host waits for the last, all are reaped.
double noops_per_us(Session& session, std::uint64_t count, std::uint32_t depth) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_NOOP;
  std::vector<std::uint64_t> ids(depth);
  const double start = now_us();
  for (std::uint64_t sent = 0; sent < count; sent += depth) {
    for (std::uint32_t i = 0; i < depth; ++i) {
      command.flags = i + 1 == depth ? SHMGEMM_FLAG_FLUSH : 0u;
      ids[i] = session.submit(command);
    }
    session.wait(ids.back());
    for (std::uint32_t i = 0; i + 1 < depth; ++i) session.wait(ids[i]);
  }
  return static_cast<double>(count) / (now_us() - start);
}

}  // namespace

Results noop_hot(const Options& options) { return noop_polling(options, true); }

Results noop_one_cpu(const Options& options) {
  stay_on_one_cpu();
  return noop_polling(options, false);
}

Results noop_parked(const Options& options) {
  RawPeer peer(true);
  const std::shared_ptr<Session> session = open_session(options);
  Results results;
  for (std::uint64_t round = 0; round < options.rounds; ++round) {
    results.ours(time_parked(options.samples, [&] { session->noop(); }));
    peer.set_mode(RawPeer::Mode::kFutex);
    results.floor(time_parked(options.samples, [&] { peer.futex_round_trip(); }));
    peer.set_mode(RawPeer::Mode::kSleep);
  }
  return results;
}

Results commands(const Options& options) {
  RawPeer peer(true);
  const std::shared_ptr<Session> session = open_session(options);
  keep_apart({session->engine_pid(), peer.pid()});
  Results results;
  noops_per_us(*session, options.samples / 10 + 1, options.depth);
  for (std::uint64_t round = 0; round < options.rounds; ++round) {
    const double ours = noops_per_us(*session, options.samples, options.depth);
    results.ours({ours, ours});
    peer.set_mode(RawPeer::Mode::kRing);
    const double start = now_us();
    peer.send_records(options.samples, options.depth);
    const double floor = static_cast<double>(options.samples) / (now_us() - start);
    results.floor({floor, floor});
    peer.set_mode(RawPeer::Mode::kSleep);
  }
  return results;
}

}  // namespace shmgemm::measure
