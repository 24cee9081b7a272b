#include "model/supervision.h"

#include <exception>

namespace shmgemm::model {

void Supervision::begin(Cycle now) {
  start_ = cycle_ = now;
  at_this_cycle_ = events_ = 0;
}

void Supervision::fail() const {
  const auto past = [](std::uint64_t limit, const std::string& what) {
    throw ModelError("it has run " + what + ", more than " + std::to_string(limit) +
                     ", and did not call done()");
  };
  if (at_this_cycle_ > limits_.at_one_cycle) {
    past(limits_.at_one_cycle, std::to_string(at_this_cycle_) + " events at cycle " +
                                   std::to_string(cycle_) + " of its device");
  }
  if (events_ > limits_.of_one_gemm) {
    past(limits_.of_one_gemm, std::to_string(events_) + " events");
  }
  past(limits_.cycles, "for " + std::to_string(cycle_ - start_) + " cycles");
  std::terminate();  // past() threw
}

void Supervision::check_end(const GemmTiming& timing, Cycle now) const {
  std::uint64_t total = 0;
  bool overflowed = __builtin_add_overflow(timing.busy, timing.fill_drain, &total);
  overflowed |= __builtin_add_overflow(total, timing.memory_stall, &total);
  overflowed |= __builtin_add_overflow(total, timing.dispatch, &total);
  if (!overflowed && total == now - start_) return;
  throw ModelError("it called done() after " + std::to_string(now - start_) +
                   " cycles with busy + fill_drain + memory_stall + dispatch = " +
                   (overflowed ? "more than 2^64" : std::to_string(total)));
}

std::string text_of(const GemmShape& shape) {
  return "GEMM M=" + std::to_string(shape.m) + " N=" + std::to_string(shape.n) +
         " K=" + std::to_string(shape.k) + " batch=" + std::to_string(shape.batch);
}

std::string current_exception_text() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

}  // namespace shmgemm::model
