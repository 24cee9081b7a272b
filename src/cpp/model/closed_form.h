// What models have in common whose cycles are a formula of the shape, on one array of rows x cols
// PEs with unlimited memory bandwidth: their parameters and their memory traffic.
#pragma once

#include "model/registry.h"
#include "model/single_event.h"

namespace shmgemm::model {

class ClosedForm : public SingleEvent {
 public:
  explicit ClosedForm(const ModelContext& context);  // reads "rows" and "cols"
  std::uint64_t peak_macs_per_cycle() const final { return rows_ * columns_; }

 protected:
  // All but the memory traffic. Dimensions are at least 1; std::overflow_error where a figure does
  // not fit (checked.h).
  virtual GemmTiming time_of(const GemmShape& shape) const = 0;

  std::uint64_t rows() const { return rows_; }
  std::uint64_t columns() const { return columns_; }

 private:
  GemmTiming timing_of(const GemmShape& shape) const final;
  std::string machine() const final;

  const std::uint64_t rows_;
  const std::uint64_t columns_;
};

std::vector<Parameter> array_parameters();  // "rows", "cols"

}  // namespace shmgemm::model
