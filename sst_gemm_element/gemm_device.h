// shmgemm.GemmDevice: one simulated accelerator. It holds the description of the device, its
// statistics, what is in its slots and its two ports for commands from inside the simulation; the
// HostPort of the same thread runs its timing model and moves simulated time.
#pragma once

#include <sst/core/component.h>
#include <sst/core/link.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "command_window.h"
#include "documentation.h"
#include "engine/device.h"
#include "engine/host_port.h"
#include "house.h"
#include "inner_port.h"
#include "model/hardware.h"
#include "standard_memory.h"
#include "timing_model_slot.h"

namespace shmgemm::sst_element {

class GemmDevice final : public SST::Component, public engine::DeviceObserver {
 public:
  SST_ELI_REGISTER_COMPONENT(GemmDevice, "shmgemm", "GemmDevice", SST_ELI_ELEMENT_VERSION(1, 0, 0),
                             "Matrix-product accelerator: GEMMs come from a host program, which "
                             "gets the numbers and the cycles",
                             COMPONENT_CATEGORY_PROCESSOR)
  static const std::vector<SST::ElementInfoParam>& ELI_getParams() {
    return device_parameter_documentation();
  }
  SST_ELI_DOCUMENT_PORTS({"commands",
                          "GEMMs from other components, which are timed and not computed",
                          {"shmgemm.CommandEvent", "shmgemm.CompletionEvent"}})
  SST_ELI_DOCUMENT_SUBCOMPONENT_SLOTS(
      {"memory", "what lies behind the scratchpads of models that have some; else it is built in",
       "SST::Interfaces::StandardMem"},
      {"timing_model", "a timing model of one's own in place of parameter `model`",
       "shmgemm::sst_element::TimingModelSlot"},
      {"mmio", "through which other components reach its registers, at `mmio_base`",
       "SST::Interfaces::StandardMem"})
  SST_ELI_DOCUMENT_STATISTICS(
      {"ops", "commands that ended well, GEMMs and others", "commands", 1},
      {"gemms", "GEMMs that ended well", "GEMMs", 1},
      {"macs", "multiply-accumulate operations of those GEMMs", "MACs", 1},
      {"rejects", "commands that were refused or failed", "commands", 1},
      {"mmio_errors", "accesses to its registers that were answered as failed", "accesses", 1},
      {"busy_cycles", "cycles in which arrays or cores worked", "cycles", 1},
      {"fill_drain_cycles", "cycles in which arrays filled and drained", "cycles", 1},
      {"memory_stall_cycles", "cycles in which work waited for memory", "cycles", 1},
      {"dispatch_cycles", "cycles between a GEMM's start and its first load", "cycles", 1},
      {"idle_cycles", "all other cycles of the simulation, entered at its end", "cycles", 1},
      {"gemm_cycles", "cycles from start to end of each GEMM", "cycles", 2},
      {"queue_depth", "commands of the device in flight, seen by each that arrives", "commands", 2},
      {"utilization_permille", "MACs of a GEMM in 1/1000 of what the peak would do in its cycles",
       "1/1000", 2},
      {"memory_read_bytes_a", "read from memory for A", "bytes", 1},
      {"memory_read_bytes_b", "read from memory for B", "bytes", 1},
      {"memory_read_bytes_c", "read from memory for C", "bytes", 1},
      {"memory_read_bytes_bias", "read from memory for the bias", "bytes", 1},
      {"memory_write_bytes_c", "written to memory for C", "bytes", 1},
      {"scratchpad_read_bytes_a", "read from scratchpads for A", "bytes", 3},
      {"scratchpad_read_bytes_b", "read from scratchpads for B", "bytes", 3},
      {"scratchpad_read_bytes_c", "read from scratchpads for C", "bytes", 3},
      {"scratchpad_write_bytes_c", "written to scratchpads for C", "bytes", 3})

  GemmDevice(SST::ComponentId_t id, SST::Params& params);
  ~GemmDevice() override;

  void init(unsigned phase) override;
  void setup() override;
  void complete(unsigned phase) override;
  void finish() override;
  void printStatus(SST::Output& out) override;

  engine::DeviceSetup served() { return {*hardware_, memory_.get(), this}; }
  bool waits_for_memory() const { return memory_ && memory_->waiting(); }
  // An op of the commands port has ended.
  void returned(engine::Op* op, shmgemm_status status, const model::GemmTiming& timing);
  SST::RankInfo place() const { return getRank(); }

  void queued(std::size_t depth) override;
  void ended(const engine::Op& op, shmgemm_status status, const model::GemmTiming& timing) override;
  void rejected() override;
  void retired() override;

 private:
  using Port = SST::Interfaces::StandardMem;
  using Counter = SST::Statistics::Statistic<std::uint64_t>;
  using PerOperand = std::array<Counter*, model::kOperands>;

  void describe(SST::Params& params);
  model::Hardware hardware_of(model::ParameterMap parameters);
  void load_timing_model();
  void load_memory();
  void load_window();
  void answered(Port::Request* response) { memory_->answered(response); }
  void accessed(Port::Request* request) { window_->take(request); }
  void take(SST::Event* event);
  void register_statistics();
  void count_traffic(const model::GemmTiming& timing);

  unsigned index_ = 0;
  std::uint64_t requests_ = 0;
  std::uint64_t mmio_base_ = 0;
  std::vector<SST::SubComponent*> slots_;  // those that are filled
  TimingModelSlot* timing_model_ = nullptr;
  std::unique_ptr<StandardMemory> memory_;
  SST::Link* commands_link_ = nullptr;
  InnerPort link_port_;
  std::unique_ptr<CommandWindow> window_;
  InnerPort window_port_;
  std::unique_ptr<model::Hardware> hardware_;
  std::uint64_t peak_macs_per_cycle_ = 0;
  std::uint64_t commands_ = 0;
  std::uint64_t rejects_ = 0;
  model::Cycle spent_ = 0;  // of all GEMMs

  Counter *ops_, *gemms_, *macs_, *rejects_counter_, *mmio_errors_;
  Counter *busy_, *fill_drain_, *memory_stall_, *dispatch_, *idle_;
  Counter *gemm_cycles_, *queue_depth_, *utilization_;
  std::array<PerOperand, model::kLevels> read_bytes_{};  // null where there is no such statistic
  std::array<PerOperand, model::kLevels> write_bytes_{};
};

}  // namespace shmgemm::sst_element
