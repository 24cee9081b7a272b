// shmgemm.HostPort: where a simulation meets the host program. It serves the queue pairs of one
// shared region with the same engine core as the embedded engine, for all GemmDevices of its
// thread, and moves simulated time to the end of what the host waits for and no further.
//
// SST runs one event at a time and has no way to wait for the outside. So the port has one event in
// flight, a tick on a self-link: at the time of the event queue's next event while a flush is being
// served, and with no delay while the port waits for its host, which it does inside the handler for
// at most 50 ms, since SST looks at signals between events. No other component sees time move then.
#pragma once

#include <sst/core/component.h>
#include <sst/core/link.h>

#include <future>
#include <memory>

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
      {"region_fd", "inherited descriptor of the shared region, as the session passes it", "3"},
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

 private:
  struct Settings {
    int region_fd, control_fd, parent_pid;
    std::uint32_t threads, devices;
  };

  static Settings settings(SST::Params& params);
  std::vector<engine::DeviceSetup> devices() const;
  void serve();
  void start_control();
  void drive(SST::Event* tick);
  void advance();
  void schedule_tick();
  void leave();

  Settings settings_;
  SST::Link* self_;
  model::EventQueue events_;
  std::shared_ptr<region::Region> region_;
  std::unique_ptr<compute::Engine> numbers_;
  std::unique_ptr<engine::HostPort> port_;
  std::unique_ptr<CycleTime> time_;
  model::Cycle reached_ = 0;  // the cycle at which SST's time is
  std::promise<void> left_;
  bool has_left_ = false;
  std::unique_ptr<engine::Control> control_;  // the last: its thread uses what stands above
};

}  // namespace shmgemm::sst_element
