// Simulated time as a timing model sees it: integer cycles of the device's clock, and callbacks.
// EventQueue is the one implementation; the embedded engine runs it directly, the SST element by
// one self-link event at next_time().
#pragma once

#include <cstdint>
#include <functional>

#include "model/interface.h"

namespace shmgemm::model {

using Cycle = std::uint64_t;

class SHMGEMM_MODEL_API Scheduler {
 public:
  virtual ~Scheduler() = default;
  virtual Cycle now() const = 0;
  // Runs `callback` at `time` (>= now()); callbacks of one time run in the order they were given.
  virtual void at(Cycle time, std::function<void()> callback) = 0;
};

}  // namespace shmgemm::model
