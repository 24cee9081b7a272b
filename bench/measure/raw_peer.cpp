#include "raw_peer.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>

#include "samples.h"

namespace shmgemm::measure {
namespace {

using Word = std::atomic<std::uint32_t>;

void futex_wait(Word& word, std::uint32_t while_is) {
  syscall(SYS_futex, &word, FUTEX_WAIT, while_is, nullptr, nullptr, 0);
}

void futex_wake(Word& word) { syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

}  // namespace

struct RawPeer::Shared {
  alignas(64) Word mode{0};
  alignas(64) Word asleep{0};
  alignas(64) Word ping{0};
  alignas(64) Word pong{0};
  alignas(64) shmgemm_queue_pair ring;
};

RawPeer::Shared* RawPeer::map_shared() {
  void* const memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("mmap failed");
  return new (memory) Shared;
}

RawPeer::RawPeer(bool may_spin) : RawPeer(may_spin, map_shared()) {}

RawPeer::RawPeer(bool may_spin, Shared* shared)
    : shared_(shared),
      may_spin_(may_spin),
      command_in_(shared->ring.commands, SHMGEMM_RING_SLOTS),
      command_out_(shared->ring.commands, SHMGEMM_RING_SLOTS),
      completion_in_(shared->ring.completions, SHMGEMM_RING_SLOTS),
      completion_out_(shared->ring.completions, SHMGEMM_RING_SLOTS) {
  child_ = fork();
  if (child_ < 0) throw std::runtime_error("fork failed");
  if (child_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve();
    _exit(0);
  }
}

RawPeer::~RawPeer() {
  set_mode(Mode::kEnd);
  waitpid(child_, nullptr, 0);
  munmap(shared_, sizeof(Shared));
}

// Spin for a microsecond, then yield: the engine's own way of waiting, without the parking.
template <class Ready>
void RawPeer::poll(Ready&& ready) const {
  if (may_spin_) {
    const double end = now_us() + 1.0;
    do {
      for (int i = 0; i < 16; ++i) {
        if (ready()) return;
        __builtin_ia32_pause();
      }
    } while (now_us() < end);
  }
  while (!ready()) sched_yield();
}

void RawPeer::set_mode(Mode mode) {
  shared_->mode = static_cast<std::uint32_t>(mode);
  futex_wake(shared_->mode);
  ++sent_;  // a last word, so that a peer waiting for one sees the new mode
  shared_->ping = sent_;
  futex_wake(shared_->ping);
  if (mode == Mode::kSleep) {
    while (shared_->asleep == 0) sched_yield();
  } else if (mode != Mode::kEnd) {
    while (shared_->asleep != 0) sched_yield();
  }
}

void RawPeer::round_trip() {
  shared_->ping = ++sent_;
  poll([this] { return shared_->pong == sent_; });
}

void RawPeer::futex_round_trip() {
  shared_->ping = ++sent_;
  futex_wake(shared_->ping);
  for (std::uint32_t seen; (seen = shared_->pong) != sent_;) futex_wait(shared_->pong, seen);
}

void RawPeer::send_records(std::uint64_t count, std::uint32_t depth) {
  shmgemm_command command{};
  shmgemm_completion completion{};
  for (std::uint64_t reaped = 0; reaped < count;) {
    for (std::uint32_t i = 0; i < depth; ++i) {
      command.id = reaped + i + 1;
      command_in_.publish(command);
    }
    for (const std::uint64_t end = reaped + depth; reaped < end; ++reaped) {
      poll([&] { return completion_out_.ready(); });
      completion_out_.poll(completion);
      if (completion.id != reaped + 1) throw std::runtime_error("the raw ring lost a record");
    }
  }
}

void RawPeer::serve() {
  for (;;) {
    const Mode mode = static_cast<Mode>(shared_->mode.load());
    if (mode == Mode::kEnd) return;
    if (mode == Mode::kSleep) {
      shared_->asleep = 1;
      futex_wait(shared_->mode, static_cast<std::uint32_t>(mode));
      continue;
    }
    const std::uint32_t seen = shared_->ping;  // before the other side may send the first one
    shared_->asleep = 0;
    if (mode == Mode::kRing) {
      serve_ring();
    } else {
      serve_words(mode, seen);
    }
  }
}

void RawPeer::serve_words(Mode mode, std::uint32_t seen) {
  while (static_cast<Mode>(shared_->mode.load()) == mode) {
    if (mode == Mode::kFutex) {
      while (shared_->ping == seen) futex_wait(shared_->ping, seen);
    } else {
      poll([&] { return shared_->ping != seen; });
    }
    seen = shared_->ping;
    shared_->pong = seen;
    if (mode == Mode::kFutex) futex_wake(shared_->pong);
  }
}

void RawPeer::serve_ring() {
  shmgemm_command command{};
  shmgemm_completion completion{};
  const auto ended = [this] { return static_cast<Mode>(shared_->mode.load()) != Mode::kRing; };
  for (;;) {
    poll([&] { return command_out_.ready() || ended(); });
    if (!command_out_.poll(command)) return;
    completion.id = command.id;
    completion_in_.publish(completion);
  }
}

}  // namespace shmgemm::measure
