// How long the ops take that no timing model sees, from the device's description: COMPUTE at the
// arrays' peak rate, READ and WRITE at the memory's bandwidth, each after the model's dispatch
// overhead. A model that declares no `dispatch` has none; one without a `memory_bw` (or with
// memory = "ideal") moves any number of bytes in no time.
#pragma once

#include <cstdint>

#include "model/hardware.h"

namespace shmgemm::engine {

class OpTiming {
 public:
  OpTiming(const model::Hardware& hardware, std::uint64_t peak_macs_per_cycle);

  model::GemmTiming compute(std::uint64_t flops) const;   // all busy
  model::GemmTiming transfer(std::uint64_t bytes) const;  // all memory stall

 private:
  std::uint64_t clock_hz_;
  std::uint64_t peak_macs_per_cycle_;
  std::uint64_t memory_bw_ = 0;  // bytes per second; 0: unlimited
  model::Cycle dispatch_ = 0;
};

}  // namespace shmgemm::engine
