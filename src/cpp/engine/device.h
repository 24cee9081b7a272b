// One simulated device: commands start in the order in which they arrived, one at a time, each when
// what it waits for has ended; a timing model says when it ends. FIFO order and integer time make
// the result a function of the order in the rings alone.
#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "engine/op.h"
#include "model/hardware.h"

namespace shmgemm::engine {

struct DeviceCounters {
  std::uint64_t ops = 0;
  std::uint64_t rejects = 0;
  std::uint64_t busy_cycles = 0;
};

class Device {
 public:
  // Called in simulated time, when an op has ended; the op is the device's no more. UNSUPPORTED
  // where the model cannot express it.
  using Ended = std::function<void(Op*, shmgemm_status, const model::GemmTiming&)>;

  Device(const model::Hardware& hardware, model::Scheduler& scheduler, model::Memory* memory,
         Ended ended);

  void enqueue(Op* op) { queue_.push_back(op); }
  // Starts whatever can start now. Call after enqueue() and after any op anywhere has ended.
  void advance();

  DeviceCounters& counters() { return counters_; }
  std::uint64_t peak_macs_per_cycle() const { return model_->peak_macs_per_cycle(); }
  std::uint64_t accumulation_length(const shmgemm_command& gemm) const;  // of the model's array

 private:
  bool may_start(Op* op);
  void start(Op* op);
  void start_product(Op* op);
  void end(Op* op, const model::GemmTiming& timing);

  model::Scheduler& scheduler_;
  Ended ended_;
  std::unique_ptr<model::TimingModel> model_;
  std::deque<Op*> queue_;
  bool busy_ = false;
  bool advancing_ = false;
  DeviceCounters counters_;
};

}  // namespace shmgemm::engine
