#include "model/closed_form.h"

#include <string>

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
    : SingleEvent(context.scheduler),
      rows_(context.parameters.count("rows")),
      columns_(context.parameters.count("cols")) {}

GemmTiming ClosedForm::timing_of(const GemmShape& shape) const {
  GemmTiming timing = time_of(shape);
  count_memory_traffic(shape, timing);
  return timing;
}

std::string ClosedForm::machine() const {
  return "a " + std::to_string(rows_) + "x" + std::to_string(columns_) + " array";
}

std::vector<Parameter> array_parameters() {
  return {
      {"rows", Unit::kCount, "128", "rows of processing elements in the array", 1, 65536, {}},
      {"cols", Unit::kCount, "128", "columns of processing elements in the array", 1, 65536, {}},
  };
}

}  // namespace shmgemm::model
