// What each core did when, for pictures: intervals by core and kind, in bounded memory. Where there
// are too many, neighbours are merged, evenly over the whole time; an interval's amount stays what
// was done in it, so that sums are exact at any resolution.
#pragma once

#include <cstddef>
#include <vector>

#include "model/timing_model.h"

namespace shmgemm::model {

class Timeline {
 public:
  // Keeps at most `capacity` intervals, shared evenly; cores for which nothing is left are not
  // kept.
  Timeline(std::size_t capacity, std::uint64_t cores);

  // Intervals of one core and kind come in the order of their starts. Those that touch or overlap
  // become one.
  void add(std::uint64_t core, ActivityKind kind, Cycle start, Cycle end, std::uint64_t amount);
  std::vector<TimelineEntry> take();  // by core, then kind, then start

 private:
  struct Lane {
    std::vector<TimelineEntry> entries;
    std::size_t grain = 1;    // intervals that share an entry
    std::size_t in_last = 0;  // of them are in the last entry
  };
  static void merge_neighbours(Lane& lane);

  std::size_t lane_capacity_;
  std::vector<Lane> lanes_;
};

}  // namespace shmgemm::model
