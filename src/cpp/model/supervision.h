// What a timing model is held to wherever it runs: its events and the cycles it reports. A model
// may come from a plug-in, so none is trusted to end.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "model/timing_model.h"

namespace shmgemm::model {

// A model broke its contract (timing_model.h).
class SHMGEMM_MODEL_API ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Past these a GEMM never ends. The first is a callback that goes on at the present cycle for ever;
// the others are an hour of simulation and more.
struct EventLimits {
  std::uint64_t at_one_cycle = std::uint64_t{1} << 24;
  std::uint64_t of_one_gemm = std::uint64_t{1} << 36;
  Cycle cycles = Cycle{1} << 56;
};

// Of one model, one GEMM after the other.
class Supervision {
 public:
  explicit Supervision(EventLimits limits = {}) : limits_(limits) {}

  void begin(Cycle now);
  // After each of the model's events while a GEMM is running; throws ModelError past a limit.
  void count_event(Cycle now) {
    if (now != cycle_) {
      cycle_ = now;
      at_this_cycle_ = 0;
    }
    if (++at_this_cycle_ > limits_.at_one_cycle || ++events_ > limits_.of_one_gemm ||
        now - start_ > limits_.cycles) {
      fail();
    }
  }
  // Throws ModelError where the parts of `timing` are not the cycles that have passed.
  void check_end(const GemmTiming& timing, Cycle now) const;

 private:
  [[noreturn]] void fail() const;

  EventLimits limits_;
  Cycle start_ = 0;
  Cycle cycle_ = 0;
  std::uint64_t at_this_cycle_ = 0;
  std::uint64_t events_ = 0;
};

// "GEMM M=1 N=2 K=3 batch=1"
std::string text_of(const GemmShape& shape);

// In a catch block, what was thrown; also where it is no std::exception.
std::string current_exception_text();

inline constexpr char kNeverDone[] = "it has no more events and did not call done()";

}  // namespace shmgemm::model
