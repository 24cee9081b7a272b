#include "model/single_event.h"

#include <stdexcept>
#include <utility>

#include "model/checked.h"

namespace shmgemm::model {

void SingleEvent::start(const GemmShape& shape, Done done) {
  if (done_) throw std::logic_error("a GEMM is running on this device");
  timing_ = checked_timing_of(shape);
  const Cycle end = checked_add(scheduler_.now(), timing_.total());
  done_ = std::move(done);
  scheduler_.at(end, [this] { finish(); });
}

void SingleEvent::finish() {
  const GemmTiming timing = timing_;
  const Done done = std::exchange(done_, nullptr);
  done(timing);
}

GemmTiming SingleEvent::checked_timing_of(const GemmShape& shape) const {
  const std::string given = "GEMM M=" + std::to_string(shape.m) + " N=" + std::to_string(shape.n) +
                            " K=" + std::to_string(shape.k) +
                            " batch=" + std::to_string(shape.batch);
  if (shape.m == 0 || shape.n == 0 || shape.k == 0 || shape.batch == 0) {
    throw std::invalid_argument(given + ": every dimension must be at least 1");
  }
  try {
    return timing_of(shape);
  } catch (const std::overflow_error&) {
    throw std::overflow_error(given + " on " + machine() +
                              ": its cycles, MACs or bytes exceed 2^63 - 1");
  }
}

}  // namespace shmgemm::model
