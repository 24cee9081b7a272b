// When a wait ends at the latest.
#pragma once

#include <chrono>

#include "region/waiter.h"

namespace shmgemm::client {

using Deadline = region::Clock::time_point;
constexpr Deadline kNoDeadline = Deadline::max();

// Of a wait that may end without a result; below 0: none.
inline Deadline limit_after(double seconds) {
  if (seconds < 0) return kNoDeadline;
  return region::Clock::now() +
         std::chrono::duration_cast<region::Nanoseconds>(std::chrono::duration<double>(seconds));
}

// Of one that ends in an error; 0: none.
inline Deadline deadline_after(double seconds) { return limit_after(seconds > 0 ? seconds : -1); }

}  // namespace shmgemm::client
