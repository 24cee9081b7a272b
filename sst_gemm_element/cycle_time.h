// The device's cycles on SST's time axis. Cycle c lies at ceil(c x 10^12 / clock) picoseconds of
// SST's time, counted from the simulation's begin: for 940 MHz, too, it is less than 1 ps late,
// however long the simulation, so that it keeps its place beside other components' clocks. What
// the device reports are its cycles; SST's time is never read back for them.
#pragma once

#include <cstdint>

#include "model/scheduler.h"

namespace shmgemm::sst_element {

class CycleTime {
 public:
  static constexpr char kTimeBase[] = "1ps";

  explicit CycleTime(std::uint64_t clock_hz) : clock_hz_(clock_hz) {}

  std::uint64_t picoseconds(model::Cycle cycle) const {
    return static_cast<std::uint64_t>((Wide{cycle} * kPerSecond + clock_hz_ - 1) / clock_hz_);
  }
  // The first cycle that does not lie before a time.
  model::Cycle cycle(std::uint64_t picoseconds) const {
    return static_cast<model::Cycle>((Wide{picoseconds} * clock_hz_ + kPerSecond - 1) / kPerSecond);
  }
  // The last cycle that does not lie after a time.
  model::Cycle reached(std::uint64_t picoseconds) const {
    return static_cast<model::Cycle>(Wide{picoseconds} * clock_hz_ / kPerSecond);
  }
  // The last cycle whose time SST can count.
  model::Cycle last() const {
    return static_cast<model::Cycle>(Wide{kLastPicosecond} * clock_hz_ / kPerSecond);
  }

 private:
  using Wide = unsigned __int128;
  static constexpr std::uint64_t kPerSecond = 1000000000000;
  static constexpr std::uint64_t kLastPicosecond = std::uint64_t{1} << 62;  // 53 days

  std::uint64_t clock_hz_;
};

}  // namespace shmgemm::sst_element
