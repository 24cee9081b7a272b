// A timing model of one's own as an SST SubComponent, in an element library of one's own: so many
// multiply-accumulate operations in a cycle, after so many cycles of start-up, and no memory.
//
// g++ -O2 -shared -fPIC $(sst-config --ELEMENT_CXXFLAGS) $(shmgemm plugin --cflags) fixed_rate.cpp
//     -o libfixed_rate.so
// device.setSubComponent("timing_model", "fixed_rate.FixedRate").addParam("macs_per_cycle", 256)
// SST_LIB_PATH names the folders of libfixed_rate.so and of libshmgemm.so.
#include <sst/core/params.h>

#include "model/checked.h"
#include "sst_gemm_element/timing_model_slot.h"

namespace {
using namespace shmgemm;

class FixedRateModel final : public model::TimingModel {
 public:
  FixedRateModel(model::Scheduler& scheduler, std::uint64_t macs_per_cycle, model::Cycle startup)
      : scheduler_(scheduler), macs_per_cycle_(macs_per_cycle), startup_(startup) {}

  void start(const model::GemmShape& shape, Done done) override {
    model::GemmTiming timing;
    timing.macs = model::checked_multiply(shape.m, shape.n, shape.k, shape.batch);
    timing.busy = model::divide_up(timing.macs, macs_per_cycle_);
    timing.dispatch = startup_;
    const model::Cycle end = model::checked_add(scheduler_.now(), timing.total());
    scheduler_.at(end, [timing, done] { done(timing); });
  }
  std::uint64_t peak_macs_per_cycle() const override { return macs_per_cycle_; }

 private:
  model::Scheduler& scheduler_;
  const std::uint64_t macs_per_cycle_;
  const model::Cycle startup_;
};

class FixedRate final : public sst_element::TimingModelSlot {
 public:
  SST_ELI_REGISTER_SUBCOMPONENT(FixedRate, "fixed_rate", "FixedRate",
                                SST_ELI_ELEMENT_VERSION(1, 0, 0),
                                "So many multiply-accumulate operations in a cycle",
                                shmgemm::sst_element::TimingModelSlot)
  SST_ELI_DOCUMENT_PARAMS({"macs_per_cycle", "multiply-accumulate operations in a cycle", "256"},
                          {"startup", "cycles before each GEMM", "0"})

  FixedRate(SST::ComponentId_t id, SST::Params& params)
      : TimingModelSlot(id),
        macs_per_cycle_(params.find<std::uint64_t>("macs_per_cycle", 256)),
        startup_(params.find<std::uint64_t>("startup", 0)) {}

  std::unique_ptr<model::TimingModel> create(const sst_element::TimingContext& context) override {
    if (macs_per_cycle_ == 0) throw std::invalid_argument("macs_per_cycle = 0: expected 1 or more");
    return std::make_unique<FixedRateModel>(context.scheduler, macs_per_cycle_, startup_);
  }

 private:
  const std::uint64_t macs_per_cycle_;
  const model::Cycle startup_;
};

}  // namespace
