#include "region/waiter.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace shmgemm::region {

unsigned allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count > 0 ? static_cast<unsigned>(count) : 1u;
}

Waiter::Waiter(shmgemm_peer* self, Nanoseconds yields)
    : self_(self), yields_(yields), may_spin_(allowed_cpus() > 1) {}

void Waiter::yield() { sched_yield(); }

// Returns early on a wake, a signal or when the flag was cleared in between: the caller looks
// again.
void Waiter::sleep(Nanoseconds limit) {
  timespec timeout{static_cast<time_t>(limit.count() / 1000000000),
                   static_cast<long>(limit.count() % 1000000000)};
  syscall(SYS_futex, &self_->sleeping, FUTEX_WAIT, 1u, &timeout, nullptr, 0);
}

void wake(shmgemm_peer* peer) {
  __atomic_store_n(&peer->sleeping, 0u, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, &peer->sleeping, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace shmgemm::region
