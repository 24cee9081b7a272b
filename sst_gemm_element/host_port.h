// shmgemm.HostPort: where a simulation meets the host program. It serves the queue pairs of one
// shared region with the same engine core as the embedded engine, for all GemmDevices of its
// thread, and moves simulated time to the end of what the host waits for and no further.
//
// SST runs one event at a time and has no way to wait for the outside. So the port sends itself
// ticks on a self-link: at the time of the event queue's next event while a flush is being served,
// and with no delay while the port waits for its host, which it does inside the handler for at most
// 50 ms, since SST looks at signals between events. No other component sees time move then. Without
// a host, time is SST's: ticks come when events of the devices are due, and nobody waits.
#pragma once

#include <sst/core/component.h>
#include <sst/core/link.h>

#include <algorithm>
#include <functional>
#include <future>
#include <memory>
#include <string>

#include "cycle_time.h"
#include "engine/control.h"
#include "engine/host_port.h"
#include "model/event_queue.h"
#include "region/region.h"

namespace shmgemm::sst_element {

class HostPort final : public SST::Component {
 public:
  SST_ELI_REGISTER_COMPONENT(HostPort, "shmgemm", "HostPort", SST_ELI_ELEMENT_VERSION(1, 0, 0),
                             "Serves the GemmDevices of its thread to a host program through "
                             "shared memory; one for each simulation",
                             COMPONENT_CATEGORY_UNCATEGORIZED)
  SST_ELI_DOCUMENT_PARAMS(
      {"host",
       "session: commands come from the program that started SST; file: from links, with operands "
       "in the file `region`; none: from the devices' ports alone",
       "session"},
      {"region", "file of host = file, made where there is none", ""},
      {"region_bytes", "size of that file; 0: as large as it is, or 256 MiB", "0"},
      {"link", "path of a Unix socket at which links are taken; none where it is empty", ""},
      {"region_fd", "inherited descriptor of the shared region, as the session passes it", "3"},
      {"header", "number of this engine among those of the region, as the session passes it", "0"},
      {"control_fd", "inherited descriptor of the session's control socket", "4"},
      {"parent", "process whose end is the simulation's; 0: only the control socket's hang-up is",
       "0"},
      {"threads", "threads that compute the products; 0: one for each CPU", "0"},
      {"devices", "GemmDevices that must be there at the start; 0: any number", "0"})

  HostPort(SST::ComponentId_t id, SST::Params& params);
  ~HostPort() override;

  void setup() override;
  void finish() override { leave(); }
  void emergencyShutdown() override { leave(); }
  void printStatus(SST::Output& out) override;

  model::Cycle now() const { return events_.now(); }
  model::Cycle last_cycle() const { return std::min(engine::kLastCycle, time_->last()); }
  // Runs a callback as an event of the devices, at the first cycle that SST's time has not passed;
  // `owner` as EventQueue has it: 0, or device + 1 where it calls the device's model.
  void post(std::function<void()> callback, std::uint32_t owner);
  void enqueue(engine::Op* op) { port_->enqueue(op); }

 private:
  struct Settings {
    bool has_host;
    bool by_session;
    std::string region, link;  // paths
    std::uint64_t region_bytes;
    int region_fd, control_fd, parent_pid;
    std::uint32_t threads, devices, header;
  };

  void enter_house(SST::Params& params);
  static Settings settings(SST::Params& params);
  std::vector<engine::DeviceSetup> devices() const;
  void serve();
  void start_control();
  std::function<void(const std::string&)> log() const;
  void drive(SST::Event* event);
  void advance(model::Cycle cycle);
  bool forgotten() const;
  void schedule_tick();
  std::uint64_t sst_time() const { return getCurrentSimTime(time_base_); }
  void leave();

  Settings settings_;
  SST::Link* self_;
  SST::TimeConverter time_base_;
  model::EventQueue events_;
  std::shared_ptr<region::Region> region_;
  std::unique_ptr<compute::Engine> numbers_;
  std::unique_ptr<engine::HostPort> port_;
  std::unique_ptr<CycleTime> time_;
  std::uint64_t tick_number_ = 0;
  bool tick_under_way_ = false;  // the one with that number, at
  std::uint64_t tick_at_ = 0;
  bool driving_ = false;
  std::promise<void> left_;
  bool has_left_ = false;
  std::unique_ptr<engine::Control> control_;  // the last: its thread uses what stands above
};

}  // namespace shmgemm::sst_element
