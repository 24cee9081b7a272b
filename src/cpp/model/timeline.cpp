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
  std::vector<TimelineEntry>& lane = lanes_[index];
  if (!lane.empty() && start <= lane.back().end) {
    lane.back().end = std::max(lane.back().end, end);
    lane.back().amount += amount;
    return;
  }
  if (lane.size() == lane_capacity_) merge_neighbours(lane);
  lane.push_back({static_cast<std::uint32_t>(core), kind, start, end, amount});
}

std::vector<TimelineEntry> Timeline::take() {
  std::vector<TimelineEntry> all;
  for (const auto& lane : lanes_) all.insert(all.end(), lane.begin(), lane.end());
  return all;
}

void Timeline::merge_neighbours(std::vector<TimelineEntry>& lane) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < lane.size(); i += 2) {
    TimelineEntry entry = lane[i];
    if (i + 1 < lane.size()) {
      entry.end = lane[i + 1].end;
      entry.amount += lane[i + 1].amount;
    }
    lane[kept++] = entry;
  }
  lane.resize(kept);
}

}  // namespace shmgemm::model
