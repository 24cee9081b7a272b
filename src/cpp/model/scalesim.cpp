// The closed forms of SCALE-Sim 3.0.0 for an output-, weight- or input-stationary systolic array,
// with unlimited memory bandwidth: a GEMM is cut into folds that fill the array, and folds never
// overlap. cycles = folds * cycles per fold - 1, for each batch entry. They agree with the tool to
// the cycle.
#include <algorithm>
#include <string>

#include "model/checked.h"
#include "model/closed_form.h"

namespace shmgemm::model {
namespace {

enum class Dataflow { kOutputStationary, kWeightStationary, kInputStationary };

// One batch entry as the array sees it: two dimensions lie across it, the third streams through.
struct Mapping {
  std::uint64_t across_rows;
  std::uint64_t across_columns;
  std::uint64_t streamed;
};

Mapping map_onto_array(Dataflow dataflow, const GemmShape& shape) {
  switch (dataflow) {
    case Dataflow::kOutputStationary:
      return {shape.m, shape.n, shape.k};
    case Dataflow::kWeightStationary:
      return {shape.k, shape.n, shape.m};
    case Dataflow::kInputStationary:
      return {shape.k, shape.m, shape.n};
  }
  throw std::logic_error("unknown dataflow");
}

class ScaleSim final : public ClosedForm {
 public:
  ScaleSim(Dataflow dataflow, const ModelContext& context)
      : ClosedForm(context), dataflow_(dataflow) {}

  std::uint64_t accumulation_length(const GemmShape& shape) const override {
    return dataflow_ == Dataflow::kOutputStationary ? shape.k : rows();
  }

 private:
  GemmTiming time_of(const GemmShape& shape) const override {
    GemmTiming timing;
    count_cycles(shape, timing);
    count_scratchpad_traffic(shape, timing);
    return timing;
  }

  void count_cycles(const GemmShape& shape, GemmTiming& timing) const {
    const Mapping mapping = map_onto_array(dataflow_, shape);
    const bool preloads = dataflow_ != Dataflow::kOutputStationary;
    const std::uint64_t folds = folds_of(mapping);
    const std::uint64_t fold_cycles =
        (preloads ? 2 : 1) * rows() + columns() + mapping.streamed - 2;
    const std::uint64_t total = checked_multiply(folds, fold_cycles) - 1;
    const std::uint64_t busy = std::min(folds * mapping.streamed, total);
    timing.busy = checked_multiply(busy, shape.batch);
    timing.fill_drain = checked_multiply(total - busy, shape.batch);
    checked_add(timing.busy, timing.fill_drain);
    timing.macs = checked_multiply(shape.m, shape.n, shape.k, shape.batch);
    timing.folds = checked_multiply(folds, shape.batch);

    const double used =
        static_cast<double>(mapping.across_rows) * static_cast<double>(mapping.across_columns);
    timing.mapping_efficiency =
        used / (static_cast<double>(folds) * static_cast<double>(peak_macs_per_cycle()));
    // SCALE-Sim divides by this length, which is not its cycles per fold.
    const std::uint64_t length = preloads ? 2 * rows() + 2 * columns() + mapping.streamed - 3
                                          : rows() + columns() + mapping.streamed - 2;
    timing.compute_utilization = timing.mapping_efficiency * static_cast<double>(mapping.streamed) /
                                 static_cast<double>(length);
  }

  // Accesses to the IFMAP (A), FILTER (B) and OFMAP (C) buffers. SCALE-Sim knows no bias and counts
  // no reads of partial sums; neither does this.
  void count_scratchpad_traffic(const GemmShape& shape, GemmTiming& timing) const {
    const std::uint64_t folds = folds_of(map_onto_array(dataflow_, shape));
    std::uint64_t repeats_a = 1, repeats_b = 1, repeats_c = 1, extra_c = 0;
    switch (dataflow_) {
      case Dataflow::kOutputStationary:
        repeats_a = divide_up(shape.n, columns());
        repeats_b = divide_up(shape.m, rows());
        extra_c = checked_multiply(folds, rows() + columns());
        break;
      case Dataflow::kWeightStationary:
        repeats_a = divide_up(shape.n, columns());
        repeats_c = divide_up(shape.k, rows());
        break;
      case Dataflow::kInputStationary:
        repeats_b = divide_up(shape.m, columns());
        repeats_c = divide_up(shape.k, rows());
        break;
    }
    auto& reads = timing.read_bytes[kScratchpad];
    reads[kA] = checked_multiply(shape.m, shape.k, repeats_a, shape.input_bytes, shape.batch);
    reads[kB] = checked_multiply(shape.k, shape.n, repeats_b, shape.input_bytes, shape.batch);
    const std::uint64_t writes =
        checked_add(checked_multiply(shape.m, shape.n, repeats_c), extra_c);
    timing.write_bytes[kScratchpad][kC] = checked_multiply(writes, shape.output_bytes, shape.batch);
  }

  std::uint64_t folds_of(const Mapping& mapping) const {
    return checked_multiply(divide_up(mapping.across_rows, rows()),
                            divide_up(mapping.across_columns, columns()));
  }

  const Dataflow dataflow_;
};

ModelInfo describe(Dataflow dataflow, const std::string& short_name, const std::string& long_name) {
  ModelInfo info;
  info.name = "scalesim_" + short_name;
  info.summary = long_name + "-stationary array, serial folds, no stalls (SCALE-Sim 3.0.0)";
  info.parameters = array_parameters();
  info.parameters.push_back({"dataflow",
                             Unit::kChoice,
                             short_name,
                             "what stays in the array (of this model: one choice)",
                             0,
                             0,
                             {short_name}});
  info.create = [dataflow](const ModelContext& context) {
    return std::make_unique<ScaleSim>(dataflow, context);
  };
  return info;
}

const Registration output_stationary{describe(Dataflow::kOutputStationary, "os", "Output")};
const Registration weight_stationary{describe(Dataflow::kWeightStationary, "ws", "Weight")};
const Registration input_stationary{describe(Dataflow::kInputStationary, "is", "Input")};

}  // namespace
}  // namespace shmgemm::model
