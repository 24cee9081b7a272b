// How one side waits for the other: spin up to 1 us, yield the CPU to whoever else wants it for
// some time, then park on the futex word `sleeping` of its own peer line. Whoever publishes a
// record wakes a parked peer, which takes 50 to 150 us in a virtual machine whose CPU went to sleep
// with it.
//
//   publish: store seq (seq_cst), load sleeping (seq_cst)     - see RingProducer::publish
//   park:    store sleeping (seq_cst), load seq (seq_cst)     - at least one side sees the other
//
// A peer that lies about `sleeping` can only make the other side sleep until its own time limit.
#pragma once

#include <chrono>
#include <cstdint>

#include "abi/shmgemm_abi.h"

namespace shmgemm::region {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;

enum class Expect { kShort, kLong };  // kLong: yield from the start, as the other side computes

class Waiter {
 public:
  // How long to yield before parking, where kShort is expected.
  static constexpr Nanoseconds kYield{100'000};
  static constexpr Nanoseconds kYieldLong{1'000'000};  // and where kLong is

  explicit Waiter(shmgemm_peer* self, Nanoseconds yields = kYield);

  // Until ready() or until `limit` has passed; says whether ready() was true. `ready` is cheap,
  // reads shared words with seq_cst and is called from this thread only.
  template <class Ready>
  bool wait(Ready&& ready, Nanoseconds limit, Expect expect = Expect::kShort) {
    if (ready()) return true;
    if (poll(ready, limit, expect == Expect::kLong)) return true;
    return park(ready, limit);
  }

 private:
  static constexpr Nanoseconds kSpin{1000};

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#else
    asm volatile("" ::: "memory");
#endif
  }
  static void yield();
  void sleep(Nanoseconds limit);

  template <class Ready>
  bool poll(Ready& ready, Nanoseconds limit, bool is_long) {
    const auto start = Clock::now();
    auto elapsed = Nanoseconds{0};
    while (may_spin_ && !is_long && elapsed < kSpin && elapsed < limit) {
      for (int i = 0; i < 16; ++i) {
        if (ready()) return true;
        pause();
      }
      elapsed = Clock::now() - start;
    }
    const Nanoseconds yields = is_long ? kYieldLong : yields_;
    while (elapsed < yields && elapsed < limit) {
      yield();
      if (ready()) return true;
      elapsed = Clock::now() - start;
    }
    return false;
  }

  template <class Ready>
  bool park(Ready& ready, Nanoseconds limit) {
    const auto end = Clock::now() + limit;
    for (;;) {
      __atomic_store_n(&self_->sleeping, 1u, __ATOMIC_SEQ_CST);
      const bool is_ready = ready();
      const Nanoseconds left = end - Clock::now();
      if (!is_ready && left.count() > 0) sleep(left);
      __atomic_store_n(&self_->sleeping, 0u, __ATOMIC_SEQ_CST);
      if (is_ready || ready()) return true;
      if (left.count() <= 0) return false;
    }
  }

  shmgemm_peer* self_;
  const Nanoseconds yields_;
  bool may_spin_;  // false where this process may run on one CPU only
};

// Wakes the peer where it is parked. Call after publishing.
void wake(shmgemm_peer* peer);
inline void wake_if_sleeping(shmgemm_peer* peer) {
  if (__atomic_load_n(&peer->sleeping, __ATOMIC_SEQ_CST) != 0) wake(peer);
}

unsigned allowed_cpus();  // of this process

}  // namespace shmgemm::region
