// The default model: cores with systolic arrays, double-buffered scratchpads, an accumulator and a
// DMA engine, in front of one memory that they share. Event by event, an event being a tile that
// arrives, a step that begins or a block that leaves; within a step the arrays are a closed form.
// Specified in docs/systolic.md.
#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "model/checked.h"
#include "model/machine.h"
#include "model/mapping.h"
#include "model/memory_models.h"
#include "model/supervision.h"
#include "model/systolic_core.h"
#include "model/timeline.h"

namespace shmgemm::model {
namespace {

constexpr std::uint64_t kMostSteps = std::uint64_t{1} << 27;  // about half a minute

void check(const GemmShape& shape) {
  if (shape.m == 0 || shape.n == 0 || shape.k == 0 || shape.batch == 0) {
    throw std::invalid_argument(text_of(shape) + ": every dimension must be at least 1");
  }
  // Bounds every count of elements and bytes, and with the number of steps every time.
  checked_multiply(shape.m, shape.n, shape.k, shape.batch);
  checked_multiply(
      checked_add(checked_multiply(shape.m, shape.k), checked_multiply(shape.k, shape.n)),
      checked_multiply(shape.batch, 8));
}

class Systolic final : public TimingModel {
 public:
  explicit Systolic(const ModelContext& context)
      : scheduler_(context.scheduler), machine_(context.parameters) {
    if (context.memory == nullptr) own_memory_ = create_memory(context.parameters, scheduler_);
    Memory& memory = context.memory == nullptr ? *own_memory_ : *context.memory;
    for (std::uint64_t i = 0; i < machine_.cores; ++i) {
      cores_.push_back(std::make_unique<SystolicCore>(
          i, machine_, scheduler_, memory, [this] { issue_later(); }, [this] { core_ended(); }));
    }
  }

  void start(const GemmShape& shape, Done done) override {
    if (done_) throw std::logic_error("a GEMM is running on this device");
    try {
      check(shape);
      op_ = std::make_unique<SystolicOp>(machine_, shape);
      checked_multiply(op_->mapping.blocks, op_->mapping.k_steps);
    } catch (const std::overflow_error&) {
      throw std::overflow_error(text_of(shape) + ": its cycles, MACs or bytes exceed 2^63 - 1");
    }
    if (op_->mapping.blocks * op_->mapping.k_steps > kMostSteps) {
      throw std::overflow_error(text_of(shape) + ": more than 2^27 steps on this device");
    }
    timeline_.reset();
    if (shape.timeline) timeline_ = std::make_unique<Timeline>(kTimelineEntries, machine_.cores);
    begin_ = scheduler_.now();
    done_ = std::move(done);
    scheduler_.at(checked_add(begin_, machine_.dispatch), [this] { start_cores(); });
  }

  std::uint64_t peak_macs_per_cycle() const override { return machine_.peak_macs_per_cycle(); }

  // Its own memory serves an op's requests before the op ends, and knows no addresses.
  bool repeats() const override { return own_memory_ != nullptr; }

  // Where sums stay, they leave the array at the end of each step.
  std::uint64_t accumulation_length(const GemmShape& shape) const override {
    if (machine_.dataflow != Dataflow::kOutputStationary) return machine_.array.rows;
    return Mapping(machine_, shape).tile.k;
  }

 private:
  void start_cores() {
    const std::uint64_t blocks = op_->mapping.blocks;
    const std::uint64_t each = blocks / machine_.cores, more = blocks % machine_.cores;
    used_ = std::min(blocks, machine_.cores);
    running_ = used_;
    std::uint64_t first = 0;
    for (std::uint64_t i = 0; i < used_; ++i) {
      const std::uint64_t count = each + (i < more ? 1 : 0);
      cores_[i]->start(*op_, first, count, timeline_.get());
      first += count;
    }
  }

  // All that happens in a cycle happens before the requests it leads to, which cores make in turn.
  void issue_later() {
    if (issue_pending_) return;
    issue_pending_ = true;
    scheduler_.at(scheduler_.now(), [this] {
      issue_pending_ = false;
      for (std::uint64_t i = 0; i < used_; ++i) cores_[i]->issue();
    });
  }

  void core_ended() {
    if (--running_ != 0) return;
    const GemmTiming timing = report();
    const Done done = std::exchange(done_, nullptr);
    done(timing);
  }

  GemmTiming report() {
    const GemmShape& shape = op_->shape;
    GemmTiming timing;
    std::uint64_t occupancy = 0, used_pes = 0;
    const SystolicCore::Totals* critical = &cores_[0]->totals();
    for (std::uint64_t i = 0; i < used_; ++i) {
      const SystolicCore::Totals& core = cores_[i]->totals();
      if (core.end > critical->end) critical = &core;
      occupancy = checked_add(occupancy, core.occupancy);
      used_pes = checked_add(used_pes, core.used_pes);
      timing.folds = checked_add(timing.folds, core.folds);
      add_traffic(core, shape, timing);
    }
    timing.dispatch = machine_.dispatch;
    timing.busy = critical->busy;
    timing.memory_stall = critical->stall;
    timing.fill_drain =
        critical->end - begin_ - timing.dispatch - timing.busy - timing.memory_stall;
    timing.macs = checked_multiply(shape.m, shape.n, shape.k, shape.batch);
    const auto pes = static_cast<double>(machine_.array.rows * machine_.array.columns);
    timing.mapping_efficiency =
        static_cast<double>(used_pes) / (static_cast<double>(timing.folds) * pes);
    timing.compute_utilization =
        static_cast<double>(timing.macs) /
        (static_cast<double>(occupancy) * pes * static_cast<double>(machine_.arrays));
    if (timeline_ != nullptr) timing.timeline = timeline_->take();
    return timing;
  }

  static void add_traffic(const SystolicCore::Totals& core, const GemmShape& shape,
                          GemmTiming& timing) {
    for (unsigned operand = 0; operand < kOperands; ++operand) {
      timing.read_bytes[kMemory][operand] += core.read_bytes[kMemory][operand];
      timing.write_bytes[kMemory][operand] += core.write_bytes[kMemory][operand];
    }
    timing.read_bytes[kScratchpad][kA] += checked_multiply(core.reads_a, shape.input_bytes);
    timing.read_bytes[kScratchpad][kB] += checked_multiply(core.reads_b, shape.input_bytes);
    timing.write_bytes[kScratchpad][kC] += checked_multiply(core.writes_c, kSumBytes);
  }

  Scheduler& scheduler_;
  const Machine machine_;
  std::unique_ptr<Memory> own_memory_;
  std::vector<std::unique_ptr<SystolicCore>> cores_;
  std::unique_ptr<SystolicOp> op_;
  std::unique_ptr<Timeline> timeline_;
  Done done_;
  Cycle begin_ = 0;
  std::uint64_t used_ = 0;     // cores with work
  std::uint64_t running_ = 0;  // of them
  bool issue_pending_ = false;
};

ModelInfo describe() {
  ModelInfo info;
  info.name = "systolic";
  info.summary = "Cores of systolic arrays with scratchpads, DMA and memory, event by event";
  info.parameters = machine_parameters();
  for (const Parameter& parameter : memory_parameters()) info.parameters.push_back(parameter);
  info.create = [](const ModelContext& context) { return std::make_unique<Systolic>(context); };
  return info;
}

const Registration registration{describe()};

}  // namespace
}  // namespace shmgemm::model
