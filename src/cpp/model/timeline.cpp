#include "model/timeline.h"

#include <algorithm>

namespace shmgemm::model {

Timeline::Timeline(std::size_t capacity, std::uint64_t cores) {
  const std::size_t least = 2 * kActivityKinds;  // of a core
  const std::size_t kept = std::min<std::size_t>(cores, capacity / least);
  lanes_.resize(kept * kActivityKinds);
  lane_capacity_ = kept == 0 ? 0 : capacity / lanes_.size();
}

void Timeline::add(std::uint64_t core, ActivityKind kind, Cycle start, Cycle end,
                   std::uint64_t amount) {
  const std::size_t index = core * kActivityKinds + kind;
  if (index >= lanes_.size() || start >= end) return;
  Lane& lane = lanes_[index];
  std::vector<TimelineEntry>& entries = lane.entries;
  const bool joins = !entries.empty() && start <= entries.back().end;
  if (!joins && lane.in_last == lane.grain && entries.size() == lane_capacity_) {
    merge_neighbours(lane);
  }
  if (joins || (!entries.empty() && lane.in_last < lane.grain)) {
    entries.back().end = std::max(entries.back().end, end);
    entries.back().amount += amount;
    if (!joins) ++lane.in_last;
    return;
  }
  entries.push_back({static_cast<std::uint32_t>(core), kind, start, end, amount});
  lane.in_last = 1;
}

std::vector<TimelineEntry> Timeline::take() {
  std::vector<TimelineEntry> all;
  for (const Lane& lane : lanes_) all.insert(all.end(), lane.entries.begin(), lane.entries.end());
  return all;
}

// Pairs become one. Of an odd number the last stays as it is, and has room for as many again.
void Timeline::merge_neighbours(Lane& lane) {
  std::vector<TimelineEntry>& entries = lane.entries;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entries.size(); i += 2) {
    TimelineEntry entry = entries[i];
    if (i + 1 < entries.size()) {
      entry.end = entries[i + 1].end;
      entry.amount += entries[i + 1].amount;
    }
    entries[kept++] = entry;
  }
  if (entries.size() % 2 == 0) lane.in_last *= 2;
  lane.grain *= 2;
  entries.resize(kept);
}

}  // namespace shmgemm::model
