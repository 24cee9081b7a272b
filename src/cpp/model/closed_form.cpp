#include "model/closed_form.h"

#include <string>
#include <utility>

#include "model/checked.h"

namespace shmgemm::model {
namespace {

// Each operand once for each batch entry; the bias, which all entries share, once.
void count_memory_traffic(const GemmShape& shape, GemmTiming& timing) {
  auto& reads = timing.read_bytes[kMemory];
  const std::uint64_t c_bytes = checked_multiply(shape.m, shape.n, shape.output_bytes, shape.batch);
  reads[kA] = checked_multiply(shape.m, shape.k, shape.input_bytes, shape.batch);
  reads[kB] = checked_multiply(shape.k, shape.n, shape.input_bytes, shape.batch);
  reads[kC] = shape.accumulate ? c_bytes : 0;
  reads[kBias] = shape.bias ? checked_multiply(shape.n, kBiasBytes) : 0;
  timing.write_bytes[kMemory][kC] = c_bytes;
}

}  // namespace

ClosedForm::ClosedForm(const ModelContext& context)
    : scheduler_(context.scheduler),
      rows_(context.parameters.count("rows")),
      columns_(context.parameters.count("cols")) {}

void ClosedForm::start(const GemmShape& shape, Done done) {
  if (done_) throw std::logic_error("a GEMM is running on this device");
  timing_ = checked_time_of(shape);
  const Cycle end = checked_add(scheduler_.now(), timing_.total());
  done_ = std::move(done);
  scheduler_.at(end, [this] { finish(); });
}

void ClosedForm::finish() {
  const GemmTiming timing = timing_;
  const Done done = std::exchange(done_, nullptr);
  done(timing);
}

GemmTiming ClosedForm::checked_time_of(const GemmShape& shape) const {
  const std::string given = "GEMM M=" + std::to_string(shape.m) + " N=" + std::to_string(shape.n) +
                            " K=" + std::to_string(shape.k) +
                            " batch=" + std::to_string(shape.batch);
  if (shape.m == 0 || shape.n == 0 || shape.k == 0 || shape.batch == 0) {
    throw std::invalid_argument(given + ": every dimension must be at least 1");
  }
  try {
    GemmTiming timing = time_of(shape);
    count_memory_traffic(shape, timing);
    return timing;
  } catch (const std::overflow_error&) {
    throw std::overflow_error(given + " on a " + std::to_string(rows_) + "x" +
                              std::to_string(columns_) +
                              " array: its cycles, MACs or bytes exceed 2^63 - 1");
  }
}

std::vector<Parameter> array_parameters() {
  return {
      {"rows", Unit::kCount, "128", "rows of processing elements in the array", 1, 65536, {}},
      {"cols", Unit::kCount, "128", "columns of processing elements in the array", 1, 65536, {}},
  };
}

}  // namespace shmgemm::model
