#include "client/monitor.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace shmgemm::client {
namespace {

constexpr int kBeatMs = 100;

std::string engine_text(const Watched& watched) {
  return watched.name + " (pid " + std::to_string(watched.engine->pid()) + ")";
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

Monitor::Monitor(Watched watched, Channel& channel, region::Region& region, double timeout_s)
    : watched_(std::move(watched)),
      channel_(channel),
      region_(region),
      patience_beats_(std::max(1u, static_cast<unsigned>(std::lround(timeout_s * 1000 / kBeatMs)))),
      quit_(eventfd(0, EFD_CLOEXEC)) {
  thread_ = start_quiet([](void* self) { static_cast<Monitor*>(self)->run(); }, this);
}

void Monitor::stop() {
  const std::uint64_t one = 1;
  (void)!write(quit_, &one, sizeof one);
}

Monitor::~Monitor() {
  stop();
  thread_.join();
  close(quit_);
}

// Until the channel has failed. An arena that is not ours is let go then.
void Monitor::run() {
  watch();
  if (watched_.attachment != nullptr) watched_.attachment->heap()->retire();
}

void Monitor::watch() {
  const int engine = watched_.engine != nullptr ? watched_.engine->pidfd() : -1;
  const int connection = watched_.connection != nullptr   ? watched_.connection->fd()
                         : watched_.attachment != nullptr ? watched_.attachment->fd()
                                                          : -1;
  for (;;) {
    pollfd polled[3] = {{engine, POLLIN, 0}, {quit_, POLLIN, 0}, {connection, POLLRDHUP, 0}};
    poll(polled, 3, kBeatMs);
    if (watched_.engine != nullptr) {
      __atomic_fetch_add(&region_.client(0)->heartbeat, 1, __ATOMIC_RELAXED);
    }
    if ((polled[0].revents & POLLIN) != 0) {
      watched_.engine->wait_dead(std::chrono::milliseconds(0));
      return channel_.fail(
          Failure::kLost, engine_text(watched_) + " is gone: " + watched_.engine->cause_of_death());
    }
    if ((polled[1].revents & POLLIN) != 0) return end_session();
    if (polled[2].revents != 0) return channel_.fail(Failure::kLost, gone_text());
    if (!beats()) return fail_silent();
    channel_.reap_abandoned();
  }
}

std::string Monitor::gone_text() const {
  if (watched_.attachment != nullptr) {
    return "the engine at " + watched_.attachment->path() + " is gone: it hung up; attach again";
  }
  return "the device server at " + watched_.connection->address().text() +
         " is gone: the connection was closed";
}

// An engine that is not ours is left alone.
void Monitor::fail_silent() {
  const std::string limit = std::to_string(patience_beats_ * kBeatMs) + " ms";
  if (watched_.attachment != nullptr) {
    return channel_.fail(Failure::kTimeout, "the engine at " + watched_.attachment->path() +
                                                " showed no sign of life for " + limit);
  }
  if (watched_.engine == nullptr) {
    return channel_.fail(Failure::kTimeout,
                         "the engine behind the device server showed no sign of life for " + limit);
  }
  watched_.engine->kill();
  watched_.engine->wait_dead(std::chrono::seconds(5));
  channel_.fail(Failure::kTimeout,
                engine_text(watched_) + " showed no sign of life for " + limit + " and was killed");
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
  if (watched_.engine != nullptr) {
    watched_.engine->ask_to_stop();
    if (!watched_.engine->wait_dead(std::chrono::milliseconds(500))) {
      watched_.engine->kill();
      watched_.engine->wait_dead(std::chrono::seconds(5));
    }
  }
  channel_.fail(Failure::kClosed, "the session was closed");
}

}  // namespace shmgemm::client
