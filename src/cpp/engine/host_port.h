// The one place where an engine meets its hosts: it takes commands from every connection in turn,
// checks a private copy, hands the op to its device and answers when simulated time reaches its
// end. Devices start ops while a flush is served and at no other time. A product's values are
// computed when it starts, or ahead of that while nothing else is to be done (ahead.h): its
// operands are the device's from when it was sent. The embedded engine and the SST element both
// drive it:
//
// Without a region it has no host; then ops come by enqueue() alone, in the SST element.
//
//   poll()      takes commands, up to and including one that flushes; else computes ahead
//   flushing()  true: run_next() until it is false again
//   wait()      nothing to do: sleep until a host rings
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "abi/shmgemm_link.h"
#include "abi/shmgemm_validate.h"
#include "compute/gemm.h"
#include "engine/ahead.h"
#include "engine/connection.h"
#include "engine/device.h"
#include "engine/link_counters.h"
#include "model/event_queue.h"
#include "model/hardware.h"
#include "model/supervision.h"
#include "region/region.h"
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
  std::function<void(const compute::Gemm* gemms, std::size_t count)> compute;
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

  void enqueue(Op* op);  // of no connection, at events.now()
  bool poll();           // true: there was something to do, or what has gone leaves an op to end
  bool flushing() const { return flush_.active || is_awaited(leaving_); }
  // Runs the next event of the queue. Where there is none, a device waits for a model that has
  // forgotten it, and that op fails; an event that throws fails the op of its device.
  void run_next();
  bool busy() const;  // a device is at work on a product
  void wait(region::Nanoseconds limit);
  void wake_clients();  // for when this engine ends

  // --- from any thread ---------------------------------------------------------------------------
  void stop();  // ends wait() and makes stopped() true
  bool stopped() const { return __atomic_load_n(&stopped_, __ATOMIC_SEQ_CST); }
  void connect(std::shared_ptr<Connection> connection);  // served until it is gone()
  void ring() const;                                     // a connection has something to take
  shmgemm_link_hello hello() const;                      // what an engine says to a link
  const std::shared_ptr<region::Region>& region() const { return region_; }
  const model::ParameterMap& parameters() const;  // of device 0, whole
  LinkCounters& link_counters() { return link_counters_; }

 private:
  using Connections = std::vector<std::shared_ptr<Connection>>;

  static bool is_awaited(const Connections& leaving);
  void meet_hosts();
  bool ready() const;
  void welcome();
  void dismiss();
  void dismiss(Connection& connection);
  bool running() const { return flush_.active || !region_; }
  bool take_turn(Connection& connection);
  void take(Connection& connection, Arrived& arrived);
  shmgemm_status check(const Connection& connection, Arrived& arrived) const;
  shmgemm_status check_time(const shmgemm_command& command) const;
  shmgemm_completion completion_of(const shmgemm_command& command, shmgemm_status status) const;
  void refuse(Connection& connection, const Arrived& arrived, shmgemm_status status);
  void accept(Connection& connection, const Arrived& arrived);
  void begin_flush_op(Connection& connection, const Arrived& arrived);
  void settle_flush();
  compute::Gemm product_of(const Op& op) const;
  void compute(Op& op);
  void compute_wave(const std::vector<Op*>& wave);
  bool compute_ahead();
  void compute_up_to(const Connection& connection, std::uint64_t last_ticket);
  void ended(Op* op, shmgemm_status status, const model::GemmTiming& timing);
  void answer(const Op& op, shmgemm_status status, const model::GemmTiming& timing);
  shmgemm_info info(std::uint8_t device) const;
  void advance_devices();
  void fail_forgotten_op();

  std::shared_ptr<region::Region> region_;
  model::EventQueue& events_;
  HostPortOptions options_;
  std::uint64_t clock_hz_;
  shmgemm_limits limits_;
  std::optional<region::Waiter> waiter_;
  Connections connections_;
  Connections leaving_;  // gone, while an op of theirs is at work: simulated time runs to its end
  std::vector<std::unique_ptr<Device>> devices_;
  Ahead ahead_;
  std::vector<compute::Gemm> gemms_;  // of a wave, kept for its memory
  std::size_t turn_ = 0;              // the connection to look at first
  bool stopped_ = false;
  LinkCounters link_counters_;

  std::mutex new_mutex_;
  Connections new_;
  bool has_new_ = false;  // atomic; under the mutex where it is set

  // What the simulation runs towards: the end of one op, or of all that its connection has in
  // flight.
  struct Flush {
    bool active = false;
    Connection* connection = nullptr;
    bool all = false;
    Dependency target;
    bool is_op = false;  // a FLUSH op: it is answered when its target has ended
    Arrived arrived{};
  };
  Flush flush_;
};

}  // namespace shmgemm::engine
