#include "model/memory_models.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace shmgemm::model {

void IdealMemory::read(const Extent&, std::function<void()> done) {
  scheduler_.at(scheduler_.now(), std::move(done));
}

void IdealMemory::write(const Extent& extent, std::function<void()> done) {
  read(extent, std::move(done));
}

BandwidthMemory::BandwidthMemory(Scheduler& scheduler, std::uint64_t clock_hz,
                                 std::uint64_t bytes_per_second, Cycle latency)
    : scheduler_(scheduler), latency_(latency) {
  const std::uint64_t common = std::gcd(clock_hz, bytes_per_second);
  ticks_per_byte_ = clock_hz / common;
  ticks_per_cycle_ = bytes_per_second / common;
}

void BandwidthMemory::read(const Extent& extent, std::function<void()> done) {
  serve(extent.total_bytes(), std::move(done));
}

void BandwidthMemory::write(const Extent& extent, std::function<void()> done) {
  serve(extent.total_bytes(), std::move(done));
}

void BandwidthMemory::serve(std::uint64_t bytes, std::function<void()> done) {
  const Ticks now = Ticks{scheduler_.now()} * ticks_per_cycle_;
  free_at_ = std::max(now, free_at_) + Ticks{bytes} * ticks_per_byte_;
  const Ticks end = (free_at_ + ticks_per_cycle_ - 1) / ticks_per_cycle_ + latency_;
  if (end > static_cast<Ticks>(INT64_MAX)) throw std::overflow_error("exceeds 2^63 - 1");
  scheduler_.at(static_cast<Cycle>(end), std::move(done));
}

std::vector<Parameter> memory_parameters() {
  return {
      {"memory",
       Unit::kChoice,
       "bandwidth",
       "what lies behind the scratchpads: bandwidth, or ideal, which takes no time",
       0,
       0,
       {"bandwidth", "ideal"}},
      {"memory_bw",
       Unit::kBytesPerSecond,
       "450GB/s",
       "memory bandwidth that the cores share",
       1000000,
       1000000000000000,
       {}},
      {"memory_latency",
       Unit::kCycles,
       "0",
       "from a request's last byte served to its end",
       0,
       1000000,
       {}},
  };
}

std::unique_ptr<Memory> create_memory(const Parameters& parameters, Scheduler& scheduler) {
  if (parameters.choice("memory") == "ideal") return std::make_unique<IdealMemory>(scheduler);
  return std::make_unique<BandwidthMemory>(scheduler, parameters.count("clock"),
                                           parameters.count("memory_bw"),
                                           parameters.count("memory_latency"));
}

}  // namespace shmgemm::model
