// A weight-stationary array that loads the next weights while it computes, as the core of ONNXim
// does, which its authors held against the RTL of Gemmini. One instruction is a tile of weights,
// rows x cols, and s <= rows rows of A; instructions follow each other max(s, 4, rows) cycles
// apart. Memory has unlimited bandwidth.
#include <algorithm>
#include <memory>
#include <string>

#include "model/checked.h"
#include "model/closed_form.h"

namespace shmgemm::model {
namespace {

constexpr std::uint64_t kLeastStream = 4;  // an instruction with fewer rows takes as long

class WsDoubleBuffered final : public ClosedForm {
 public:
  using ClosedForm::ClosedForm;

  std::uint64_t accumulation_length(const GemmShape&) const override { return rows(); }

 private:
  GemmTiming time_of(const GemmShape& shape) const override {
    const std::uint64_t tiles =
        checked_multiply(divide_up(shape.k, rows()), divide_up(shape.n, columns()));
    const std::uint64_t all_tiles = checked_multiply(tiles, shape.batch);
    const std::uint64_t pieces = divide_up(shape.m, rows());  // of A, for each tile of weights
    const std::uint64_t last_piece = shape.m - (pieces - 1) * rows();
    GemmTiming timing;
    timing.macs = checked_multiply(shape.m, shape.n, shape.k, shape.batch);
    timing.folds = checked_multiply(all_tiles, pieces);
    timing.busy = checked_multiply(all_tiles, shape.m);
    timing.fill_drain = cycles_of(timing.folds, last_piece) - timing.busy;
    timing.mapping_efficiency =
        static_cast<double>(shape.k) * static_cast<double>(shape.n) /
        (static_cast<double>(tiles) * static_cast<double>(peak_macs_per_cycle()));
    timing.compute_utilization = timing.mapping_efficiency * streaming_share(shape.m, pieces);
    count_scratchpad_traffic(shape, pieces, timing);
    return timing;
  }

  // The first instruction waits for its weights. No piece is longer than `rows`, so all intervals
  // are equal, and only the last piece's length counts.
  std::uint64_t cycles_of(std::uint64_t instructions, std::uint64_t last_piece) const {
    const std::uint64_t first_start = 2 * rows() - 1;
    const std::uint64_t last_start =
        checked_add(first_start, checked_multiply(instructions - 1, interval()));
    const std::uint64_t length = rows() + columns() - 2 + std::max(last_piece, kLeastStream);
    return checked_add(last_start, length);
  }

  // Mean over the instructions of the share of its interval, for which a PE is an instruction's
  // alone, in which the PE multiplies.
  double streaming_share(std::uint64_t m, std::uint64_t pieces) const {
    return static_cast<double>(m) / (static_cast<double>(pieces) * static_cast<double>(interval()));
  }

  std::uint64_t interval() const { return std::max(rows(), kLeastStream); }

  // Weights are fetched by every instruction. C is written once for each piece of K: the
  // accumulator adds in place, and its reads are not counted.
  void count_scratchpad_traffic(const GemmShape& shape, std::uint64_t pieces,
                                GemmTiming& timing) const {
    auto& reads = timing.read_bytes[kScratchpad];
    reads[kA] = checked_multiply(shape.m, shape.k, divide_up(shape.n, columns()), shape.input_bytes,
                                 shape.batch);
    reads[kB] = checked_multiply(shape.k, shape.n, pieces, shape.input_bytes, shape.batch);
    timing.write_bytes[kScratchpad][kC] = checked_multiply(
        shape.m, shape.n, divide_up(shape.k, rows()), shape.output_bytes, shape.batch);
  }
};

ModelInfo describe() {
  ModelInfo info;
  info.name = "ws_double_buffered";
  info.summary =
      "Weight-stationary array, the next weights load behind the work, no stalls (ONNXim)";
  info.parameters = array_parameters();
  info.parameters.push_back({"dataflow",
                             Unit::kChoice,
                             "ws",
                             "what stays in the array (of this model: one choice)",
                             0,
                             0,
                             {"ws"}});
  info.create = [](const ModelContext& context) {
    return std::make_unique<WsDoubleBuffered>(context);
  };
  return info;
}

const Registration registration{describe()};

}  // namespace
}  // namespace shmgemm::model
