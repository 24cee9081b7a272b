// One simulated device: commands start in the order in which they arrived, one at a time, each when
// what it waits for has ended and time may move; a timing model says when a product ends. FIFO
// order and integer time make the result a function of the order in the rings alone. A model that
// throws or breaks its contract fails the op it was told, and a fresh one takes the next.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/device_memory.h"
#include "engine/lane.h"
#include "engine/op.h"
#include "engine/op_timing.h"
#include "engine/timing_memo.h"
#include "model/hardware.h"
#include "model/supervision.h"

namespace shmgemm::engine {

struct DeviceCounters {
  std::uint64_t ops = 0;
  std::uint64_t rejects = 0;
  std::uint64_t busy_cycles = 0;
};

// Told, in simulated time, what becomes of a device's commands; for statistics.
class DeviceObserver {
 public:
  virtual ~DeviceObserver() = default;
  virtual void queued(std::size_t depth) = 0;  // with the op that was just added
  virtual void ended(const Op& op, shmgemm_status status, const model::GemmTiming& timing) = 0;
  virtual void rejected() = 0;  // it never became an op
  virtual void retired() = 0;   // the model is to be called no more; a fresh one takes the next op
};

// What CONFIGURE sets, by enum shmgemm_configure; RESET sets it back.
struct DeviceConfiguration {
  std::uint64_t max_compute_units = std::uint64_t{1} << 40;
};

// What a device stands in.
struct DeviceHost {
  model::EventQueue& events;
  std::uint32_t owner;  // of its model's events, above 0
  model::Memory* memory;
  DeviceObserver* observer;          // may be null
  std::function<bool()> running;     // time may move; else nothing starts
  std::function<void(Op&)> compute;  // the values of a product that starts
  // Called in simulated time, when an op has ended; the op is the device's no more. UNSUPPORTED
  // where the model refused it, ERROR where the model failed.
  std::function<void(Op*, shmgemm_status, const model::GemmTiming&)> ended;
  std::function<void(const std::string&)> log;
  model::EventLimits limits;
  model::Cycle last_cycle = kLastCycle;  // no event lies past it
};

class Device {
 public:
  Device(const model::Hardware& hardware, DeviceHost host);  // throws as create_model()

  void enqueue(Op* op);
  // Starts whatever can start now. Call after enqueue() and after any op anywhere has ended.
  void advance();

  bool busy() const { return op_ != nullptr || timed_ != nullptr; }
  // Forgets what `connection` has queued, one by one; what has started goes on.
  template <class Forget>
  void drop_queued(const Connection* connection, Forget&& forget);
  void count_event();  // after each event of its model; throws ModelError past a limit
  // Ends what the model was doing with ERROR and replaces the model.
  void fail(const std::string& why);
  void drop_retired() { retired_.clear(); }  // not from within an event
  void count_reject();                       // of a command that never became an op

  const model::Hardware& hardware() const { return hardware_; }
  const DeviceCounters& counters() const { return counters_; }
  const DeviceConfiguration& configuration() const { return configuration_; }
  std::uint64_t peak_macs_per_cycle() const { return peak_macs_per_cycle_; }
  std::uint64_t accumulation_length(const shmgemm_command& gemm);  // of the model's array

 private:
  struct Instance {
    Lane lane;
    std::unique_ptr<model::TimingModel> model;
  };

  bool may_start(Op* op);
  void start(Op* op);
  void start_product(Op* op);
  bool start_repeated(Op* op);
  void start_timed(Op* op);
  void end_timed(const model::GemmTiming& timing);
  shmgemm_status move(const Op& op);
  shmgemm_status configure(const shmgemm_command& command);
  void reset();
  void tell_ended(Op* op, shmgemm_status status, const model::GemmTiming& timing);
  void end(std::uint64_t run, const model::GemmTiming& timing);
  void end_badly(shmgemm_status status, const std::string& why);
  std::unique_ptr<Instance> make_instance();
  void retire();

  const model::Hardware hardware_;
  DeviceHost host_;
  std::unique_ptr<Instance> instance_;              // null: to be made for the next product
  std::vector<std::unique_ptr<Instance>> retired_;  // their code may be on the stack
  std::uint64_t peak_macs_per_cycle_ = 0;
  OpTiming timing_;
  TimingMemo memo_;
  DeviceMemory memory_;
  DeviceConfiguration configuration_;
  model::Supervision supervision_;
  std::deque<Op*> queue_;
  Op* op_ = nullptr;     // the product the model is at
  Op* timed_ = nullptr;  // or an op whose time is known: of another kind, or repeated
  std::uint64_t runs_ = 0;
  bool advancing_ = false;
  DeviceCounters counters_;
};

template <class Forget>
void Device::drop_queued(const Connection* connection, Forget&& forget) {
  const auto is_theirs = [connection](const Op* op) { return op->connection == connection; };
  const auto kept = std::stable_partition(queue_.begin(), queue_.end(), std::not_fn(is_theirs));
  std::for_each(kept, queue_.end(), forget);
  queue_.erase(kept, queue_.end());
}

}  // namespace shmgemm::engine
