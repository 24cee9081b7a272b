// What models have in common whose cycles are a formula of the shape, on one array of rows x cols
// PEs with unlimited memory bandwidth: one event at the end, checks of the shape, memory traffic.
#pragma once

#include "model/registry.h"

namespace shmgemm::model {

class ClosedForm : public TimingModel {
 public:
  explicit ClosedForm(const ModelContext& context);  // reads "rows" and "cols"
  void start(const GemmShape& shape, Done done) final;
  std::uint64_t peak_macs_per_cycle() const final { return rows_ * columns_; }

 protected:
  // All but the memory traffic. Dimensions are at least 1; std::overflow_error where a figure does
  // not fit (checked.h).
  virtual GemmTiming time_of(const GemmShape& shape) const = 0;

  std::uint64_t rows() const { return rows_; }
  std::uint64_t columns() const { return columns_; }

 private:
  GemmTiming checked_time_of(const GemmShape& shape) const;
  void finish();

  Scheduler& scheduler_;
  const std::uint64_t rows_;
  const std::uint64_t columns_;
  GemmTiming timing_;
  Done done_;
};

std::vector<Parameter> array_parameters();  // "rows", "cols"

}  // namespace shmgemm::model
