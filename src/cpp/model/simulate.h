// One GEMM on a fresh device: timing only, no session and no values.
#pragma once

#include <functional>

#include "model/hardware.h"
#include "model/supervision.h"

namespace shmgemm::model {

struct Simulated {
  GemmTiming timing;
  std::uint64_t peak_macs_per_cycle = 0;
};

// `pause` is called every few thousand events and may throw. Throws what the model's start()
// throws by contract (std::overflow_error, std::invalid_argument), and ModelError, which names the
// model, where it threw anything else, never ends or reports cycles that did not pass.
Simulated simulate(const Hardware& hardware, const GemmShape& shape,
                   const std::function<void()>& pause = nullptr, EventLimits limits = {});

}  // namespace shmgemm::model
