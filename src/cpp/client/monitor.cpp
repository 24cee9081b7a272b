#include "client/monitor.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace shmgemm::client {
namespace {

constexpr int kBeatMs = 100;

std::string engine_text(const EngineProcess& engine) {
  return "the engine (pid " + std::to_string(engine.pid()) + ")";
}

// Signals are for the program's own threads.
std::thread start_quiet(void (*function)(void*), void* argument) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(function, argument);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace

Monitor::Monitor(EngineProcess& engine, Channel& channel, region::Region& region, double timeout_s)
    : engine_(engine),
      channel_(channel),
      region_(region),
      patience_beats_(std::max(1u, static_cast<unsigned>(std::lround(timeout_s * 1000 / kBeatMs)))),
      quit_(eventfd(0, EFD_CLOEXEC)) {
  thread_ = start_quiet([](void* self) { static_cast<Monitor*>(self)->run(); }, this);
}

Monitor::~Monitor() {
  const std::uint64_t one = 1;
  if (write(quit_, &one, sizeof one) == sizeof one) thread_.join();
  close(quit_);
}

void Monitor::run() {
  for (;;) {
    pollfd watched[2] = {{engine_.pidfd(), POLLIN, 0}, {quit_, POLLIN, 0}};
    poll(watched, 2, kBeatMs);
    __atomic_fetch_add(&region_.client(0)->heartbeat, 1, __ATOMIC_RELAXED);
    if ((watched[0].revents & POLLIN) != 0) {
      engine_.wait_dead(std::chrono::milliseconds(0));
      return channel_.fail(Failure::kLost,
                           engine_text(engine_) + " is gone: " + engine_.cause_of_death());
    }
    if ((watched[1].revents & POLLIN) != 0) return end_session();
    if (!beats()) {
      engine_.kill();
      engine_.wait_dead(std::chrono::seconds(5));
      return channel_.fail(Failure::kTimeout,
                           engine_text(engine_) + " showed no sign of life for " +
                               std::to_string(patience_beats_ * kBeatMs) + " ms and was killed");
    }
    channel_.reap_abandoned();
  }
}

// Counted in our own beats, not in time: where both were stopped, nobody was silent.
bool Monitor::beats() {
  const std::uint64_t heartbeat = __atomic_load_n(&region_.engine()->heartbeat, __ATOMIC_RELAXED);
  const bool silent = heartbeat == last_heartbeat_ && channel_.has_in_flight();
  last_heartbeat_ = heartbeat;
  silent_beats_ = silent ? silent_beats_ + 1 : 0;
  return silent_beats_ <= patience_beats_;
}

void Monitor::end_session() {
  engine_.ask_to_stop();
  if (!engine_.wait_dead(std::chrono::milliseconds(500))) {
    engine_.kill();
    engine_.wait_dead(std::chrono::seconds(5));
  }
  channel_.fail(Failure::kClosed, "the session was closed");
}

}  // namespace shmgemm::client
