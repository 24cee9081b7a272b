// Times of one thing measured in rounds, turn about with its floor: a round's median and 99th
// percentile are kept, and printed as one line of JSON for the Python side to take medians of.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace shmgemm::measure {

inline double now_us() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(since).count();
}

struct Round {
  double p50 = 0, p99 = 0;
};

Round round_of(std::vector<double> samples);

// The call's duration in microseconds, `count` times.
template <class Call>
Round time_round(std::uint64_t count, Call&& call) {
  std::vector<double> samples(count);
  for (double& sample : samples) {
    const double start = now_us();
    call();
    sample = now_us() - start;
  }
  return round_of(std::move(samples));
}

class Results {
 public:
  void ours(const Round& round) { ours_.push_back(round); }
  void floor(const Round& round) { floor_.push_back(round); }
  std::string json() const;  // {"ours": [[p50, p99], ...], "floor": [...]}

 private:
  std::vector<Round> ours_, floor_;
};

}  // namespace shmgemm::measure
