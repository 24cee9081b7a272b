// A plug-in for the tests of `shmgemm sim --model`: it declares every parameter that a SCALE-Sim
// cfg has a figure for. A GEMM takes as long as its bytes take at `memory_bw`, all of it a stall
// but one cycle.
#include "model/checked.h"
#include "model/registry.h"

namespace {

using namespace shmgemm::model;

class CfgModel final : public TimingModel {
 public:
  explicit CfgModel(const ModelContext& context)
      : scheduler_(context.scheduler),
        clock_(context.parameters.count("clock")),
        bandwidth_(context.parameters.count("memory_bw")) {}

  void start(const GemmShape& shape, Done done) override {
    GemmTiming timing;
    timing.macs = shape.m * shape.n * shape.k * shape.batch;
    auto& reads = timing.read_bytes[kMemory];
    reads[kA] = shape.m * shape.k * shape.input_bytes;
    reads[kB] = shape.k * shape.n * shape.input_bytes;
    timing.write_bytes[kMemory][kC] = shape.m * shape.n * shape.output_bytes;
    const std::uint64_t bytes = reads[kA] + reads[kB] + timing.write_bytes[kMemory][kC];
    timing.busy = 1;
    timing.memory_stall = divide_up(checked_multiply(bytes, clock_), bandwidth_);
    scheduler_.at(scheduler_.now() + timing.total(), [=] { done(timing); });
  }
  std::uint64_t peak_macs_per_cycle() const override { return 1; }

 private:
  Scheduler& scheduler_;
  const std::uint64_t clock_, bandwidth_;
};

const Registration registration{
    {"cfg",
     "Takes all of a cfg",
     {{"rows", Unit::kCount, "1", "rows", 1, 65536, {}},
      {"cols", Unit::kCount, "1", "columns", 1, 65536, {}},
      {"dataflow", Unit::kChoice, "ws", "what stays", 0, 0, {"os", "ws"}},
      {"memory_bw", Unit::kBytesPerSecond, "1GB/s", "of memory", 1, 1000000000000000, {}},
      {"scratchpad_a", Unit::kBytes, "1KiB", "for A", 1, 1 << 20, {}},
      {"scratchpad_b", Unit::kBytes, "1KiB", "for B", 1, 1 << 20, {}},
      {"accumulator", Unit::kBytes, "1KiB", "for C", 1, 1 << 20, {}}},
     [](const ModelContext& context) { return std::make_unique<CfgModel>(context); }}};

}  // namespace
