// The one place where an engine meets its hosts: it takes commands from every queue pair in turn,
// checks a private copy, computes the values, hands the op to its device and publishes completions
// when simulated time reaches them. The embedded engine and the SST element both drive it:
//
// Without a region it has no host; then ops come by enqueue() alone, in the SST element.
//
//   poll()      takes commands, up to and including one that flushes
//   flushing()  true: run_next() until it is false again
//   wait()      nothing to do: sleep until a host rings
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "abi/shmgemm_validate.h"
#include "compute/gemm.h"
#include "engine/device.h"
#include "model/event_queue.h"
#include "model/hardware.h"
#include "model/supervision.h"
#include "region/region.h"
#include "region/ring.h"
#include "region/waiter.h"

namespace shmgemm::engine {

// One device that a host port serves; what is pointed at outlives the port.
struct DeviceSetup {
  model::Hardware hardware;
  model::Memory* memory = nullptr;     // null: the model has its own
  DeviceObserver* observer = nullptr;  // null: nobody looks
};

struct HostPortOptions {
  std::string engine_name = "embedded";
  std::uint32_t threads = 1;  // told to clients by GET_INFO
  std::function<void(const compute::Gemm&)> compute;
  std::function<void(const std::string&)> log = [](const std::string&) {};  // why an op failed
  model::EventLimits limits;
  model::Cycle last_cycle = kLastCycle;  // at most kLastCycle
  // Of an op that came by enqueue(): it is the caller's again.
  std::function<void(Op*, shmgemm_status, const model::GemmTiming&)> returned;
};

class HostPort {
 public:
  // `region` may be null. One device for each of `setups`, whose clocks are one:
  // std::invalid_argument where they differ or there is none.
  HostPort(std::shared_ptr<region::Region> region, const std::vector<DeviceSetup>& setups,
           model::EventQueue& events, HostPortOptions options);

  void enqueue(Op* op);  // whose queue pair is kNoQueuePair, at events.now()
  bool poll();           // true: took at least one command
  bool flushing() const { return flush_.active; }
  // Runs the next event of the queue. Where there is none, a device waits for a model that has
  // forgotten it, and that op fails; an event that throws fails the op of its device.
  void run_next();
  bool busy() const;  // a device is at work on a product
  void wait(region::Nanoseconds limit);
  void wake_clients();  // for when this engine ends
  void stop();          // from another thread: ends wait() and makes stopped() true
  bool stopped() const { return __atomic_load_n(&stopped_, __ATOMIC_SEQ_CST); }

 private:
  struct QueuePair {
    QueuePair(region::Region& region, std::uint32_t index);
    region::RingConsumer<shmgemm_command> commands;
    region::RingProducer<shmgemm_completion> completions;
    shmgemm_peer* client;
    OpTable ops;
  };

  void meet_hosts();
  bool ready() const;
  void take(std::uint32_t index, const shmgemm_command& command);
  shmgemm_status check(const QueuePair& pair, const shmgemm_command& command) const;
  shmgemm_completion answer(const shmgemm_command& command, shmgemm_status status) const;
  void reject(QueuePair& pair, const shmgemm_command& command, shmgemm_status status);
  void accept(std::uint32_t index, const shmgemm_command& command);
  void begin_flush_op(std::uint32_t index, const shmgemm_command& command);
  void settle_flush();
  void compute(const shmgemm_command& command) const;
  void ended(Op* op, shmgemm_status status, const model::GemmTiming& timing);
  void publish(QueuePair& pair, const shmgemm_completion& completion);
  std::uint32_t write_info(const shmgemm_command& command) const;
  void advance_devices();
  void fail_forgotten_op();

  std::shared_ptr<region::Region> region_;
  model::EventQueue& events_;
  HostPortOptions options_;
  std::uint64_t clock_hz_;
  shmgemm_limits limits_;
  std::optional<region::Waiter> waiter_;
  std::vector<std::unique_ptr<QueuePair>> pairs_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::uint32_t turn_ = 0;  // the queue pair to look at first
  bool stopped_ = false;

  // What the simulation runs towards: the end of one op, or of all that its queue pair has in
  // flight.
  struct Flush {
    bool active = false;
    std::uint32_t pair = 0;
    bool all = false;
    Dependency target;
    bool is_op = false;  // a FLUSH op: it is answered when its target has ended
    shmgemm_command command{};
  };
  Flush flush_;
};

}  // namespace shmgemm::engine
