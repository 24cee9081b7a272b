// What fits into the slot `timing_model` of a shmgemm.GemmDevice: an SST SubComponent that makes
// timing models. The device asks it for one when it starts and for a fresh one after a failure, and
// drives each as it drives its own models: the contract is that of model/timing_model.h.
//
// An element library of your own registers the SubComponent with
//   SST_ELI_REGISTER_SUBCOMPONENT(FixedRate, "my_library", "FixedRate",
//                                 SST_ELI_ELEMENT_VERSION(1, 0, 0), "what it models",
//                                 shmgemm::sst_element::TimingModelSlot)
// sst_gemm_element/examples/fixed_rate.cpp is a whole one.
#pragma once

#include <sst/core/subcomponent.h>

#include <cstdint>
#include <memory>

#include "model/memory.h"
#include "model/timing_model.h"

namespace shmgemm::sst_element {

// What a model stands in; scheduler and memory outlive it.
struct TimingContext {
  model::Scheduler& scheduler;
  model::Memory* memory = nullptr;  // what is in the device's slot `memory`; null: nothing is
  std::uint64_t clock_hz = 0;       // of the cycles that the scheduler counts
};

class TimingModelSlot : public SST::SubComponent {
 public:
  SST_ELI_REGISTER_SUBCOMPONENT_API(shmgemm::sst_element::TimingModelSlot)

  explicit TimingModelSlot(SST::ComponentId_t id,
                           std::uint32_t interface_version = model::kInterfaceVersion)
      : SST::SubComponent(id), interface_version_(interface_version) {}

  // A model of its own each time: several may exist, one is at work. What it throws is an error
  // that names this SubComponent, at the start of the simulation.
  virtual std::unique_ptr<model::TimingModel> create(const TimingContext& context) = 0;

  // What this SubComponent was compiled against.
  std::uint32_t interface_version() const { return interface_version_; }

 private:
  std::uint32_t interface_version_;
};

}  // namespace shmgemm::sst_element
