// shmgemm.CommandSource: plays the GEMMs of a csv file on a device, in order, so many at a time,
// and lets the simulation end when the last answer is there. No host program is needed. Commands go
// over a link to the device, or through memory to its registers.
#pragma once

#include <sst/core/component.h>
#include <sst/core/link.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi/shmgemm_abi.h"
#include "window_driver.h"

namespace shmgemm::sst_element {

class CommandSource final : public SST::Component {
 public:
  SST_ELI_REGISTER_COMPONENT(CommandSource, "shmgemm", "CommandSource",
                             SST_ELI_ELEMENT_VERSION(1, 0, 0),
                             "Plays the GEMMs of a csv file on a shmgemm.GemmDevice",
                             COMPONENT_CATEGORY_UNCATEGORIZED)
  SST_ELI_DOCUMENT_PARAMS(
      {"file", "csv with a header line, then a line `name, M, N, K` for each GEMM", nullptr},
      {"dtype", "of A and B: float32, float16, bfloat16 or int8, whose C is int32", "float32"},
      {"in_flight", "GEMMs under way at once (from 1 to 256)", "1"},
      {"repeat", "how often the file is played (from 1 to 1000000)", "1"},
      {"mmio_base", "address of the device's registers; where the slot `interface` is filled", "0"})
  SST_ELI_DOCUMENT_SUBCOMPONENT_SLOTS(
      {"interface", "through which the device's registers are reached; else port `device` is used",
       "SST::Interfaces::StandardMem"})
  SST_ELI_DOCUMENT_PORTS({"device",
                          "to the port `commands` of a shmgemm.GemmDevice",
                          {"shmgemm.CommandEvent", "shmgemm.CompletionEvent"}})
  SST_ELI_DOCUMENT_STATISTICS({"cycles", "device cycles from start to end of each GEMM", "cycles",
                               1},
                              {"failures", "GEMMs that the device refused or failed", "GEMMs", 1})

  CommandSource(SST::ComponentId_t id, SST::Params& params);

  void init(unsigned phase) override;
  void setup() override;
  void complete(unsigned phase) override;
  void finish() override;
  void printStatus(SST::Output& out) override;

 private:
  void read(SST::Params& params);
  void connect();
  void send_more();
  void take(SST::Event* event);
  void answered(SST::Interfaces::StandardMem::Request* response);
  void count(const shmgemm_completion& completion);

  std::vector<shmgemm_command> commands_;
  std::uint64_t to_send_ = 0;
  std::uint64_t most_in_flight_ = 1;
  std::uint64_t sent_ = 0;
  std::uint64_t ended_ = 0;
  std::uint64_t mmio_base_ = 0;
  SST::Link* device_ = nullptr;
  SST::Interfaces::StandardMem* interface_ = nullptr;
  std::unique_ptr<WindowDriver> driver_;  // where `interface_` is
  SST::Statistics::Statistic<std::uint64_t>* cycles_;
  SST::Statistics::Statistic<std::uint64_t>* failures_;
};

}  // namespace shmgemm::sst_element
