// What models have in common that know a GEMM's end when it starts: checks of the shape, one event
// at the end.
#pragma once

#include <string>

#include "model/timing_model.h"

namespace shmgemm::model {

class SingleEvent : public TimingModel {
 public:
  void start(const GemmShape& shape, Done done) final;

 protected:
  explicit SingleEvent(Scheduler& scheduler) : scheduler_(scheduler) {}

 private:
  // Dimensions are at least 1; std::overflow_error where a figure does not fit (checked.h).
  virtual GemmTiming timing_of(const GemmShape& shape) const = 0;
  virtual std::string machine() const = 0;  // as an error names it: "a 128x128 array"

  GemmTiming checked_timing_of(const GemmShape& shape) const;
  void finish();

  Scheduler& scheduler_;
  GemmTiming timing_;
  Done done_;
};

}  // namespace shmgemm::model
