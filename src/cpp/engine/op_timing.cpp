#include "engine/op_timing.h"

#include <algorithm>

namespace shmgemm::engine {
namespace {

using Wide = unsigned __int128;
constexpr Wide kMost = Wide{1} << 62;  // simulated time ends before

model::Cycle divided(Wide amount, Wide by) {
  return static_cast<model::Cycle>(std::min(kMost, (amount + by - 1) / by));
}

// Of a parameter that only some models declare.
std::uint64_t value(const model::Hardware& hardware, const char* name, model::Unit unit) {
  for (const model::Parameter& parameter : hardware.model().parameters) {
    if (parameter.name == name && parameter.unit == unit) {
      return hardware.parameters().count(name);
    }
  }
  return 0;
}

bool is_ideal(const model::Hardware& hardware) {
  const model::ParameterMap& text = hardware.parameters().text();
  const auto memory = text.find("memory");
  return memory != text.end() && memory->second == "ideal";
}

}  // namespace

OpTiming::OpTiming(const model::Hardware& hardware, std::uint64_t peak_macs_per_cycle)
    : clock_hz_(hardware.clock_hz()),
      peak_macs_per_cycle_(std::max<std::uint64_t>(1, peak_macs_per_cycle)),
      dispatch_(value(hardware, "dispatch", model::Unit::kCycles)) {
  if (!is_ideal(hardware)) {
    memory_bw_ = value(hardware, "memory_bw", model::Unit::kBytesPerSecond);
  }
}

model::GemmTiming OpTiming::compute(std::uint64_t flops) const {
  model::GemmTiming timing;
  timing.dispatch = dispatch_;
  timing.busy = divided(flops, Wide{2} * peak_macs_per_cycle_);
  return timing;
}

model::GemmTiming OpTiming::transfer(std::uint64_t bytes) const {
  model::GemmTiming timing;
  timing.dispatch = dispatch_;
  if (memory_bw_ != 0) timing.memory_stall = divided(Wide{bytes} * clock_hz_, memory_bw_);
  return timing;
}

}  // namespace shmgemm::engine
