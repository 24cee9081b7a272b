#include "engine/report.h"

#include <algorithm>
#include <cstring>

#include "abi/shmgemm_abi.h"

namespace shmgemm::engine {

static_assert(unsigned{model::kLevels} == unsigned{SHMGEMM_LEVELS} &&
              unsigned{model::kOperands} == unsigned{SHMGEMM_OPERANDS});
static_assert(unsigned{model::kLoad} == unsigned{SHMGEMM_ACTIVITY_LOAD} &&
              unsigned{model::kCompute} == unsigned{SHMGEMM_ACTIVITY_COMPUTE} &&
              unsigned{model::kStore} == unsigned{SHMGEMM_ACTIVITY_STORE} &&
              unsigned{model::kStall} == unsigned{SHMGEMM_ACTIVITY_STALL} &&
              unsigned{model::kActivityKinds} == unsigned{SHMGEMM_ACTIVITIES});
static_assert(sizeof(shmgemm_gemm_report) +
                  model::kTimelineEntries * sizeof(shmgemm_timeline_entry) <=
              SHMGEMM_REPORT_BYTES);

std::uint32_t write_gemm_report(std::byte* block, const model::GemmTiming& timing,
                                std::uint64_t peak_macs_per_cycle) {
  const std::size_t room =
      (SHMGEMM_REPORT_BYTES - sizeof(shmgemm_gemm_report)) / sizeof(shmgemm_timeline_entry);
  const std::size_t entries = std::min(room, timing.timeline.size());
  shmgemm_gemm_report report{};
  report.head.kind = SHMGEMM_REPORT_GEMM;
  report.head.bytes =
      static_cast<std::uint32_t>(sizeof report + entries * sizeof(shmgemm_timeline_entry));
  report.macs = timing.macs;
  report.peak_macs_per_cycle = peak_macs_per_cycle;
  report.folds = timing.folds;
  report.mapping_efficiency = timing.mapping_efficiency;
  report.compute_utilization = timing.compute_utilization;
  for (unsigned level = 0; level < model::kLevels; ++level) {
    std::copy_n(timing.read_bytes[level].begin(), model::kOperands, report.read_bytes[level]);
    std::copy_n(timing.write_bytes[level].begin(), model::kOperands, report.write_bytes[level]);
  }
  report.timeline_count = static_cast<std::uint32_t>(entries);
  std::memcpy(block, &report, sizeof report);
  std::byte* at = block + sizeof report;
  for (std::size_t i = 0; i < entries; ++i, at += sizeof(shmgemm_timeline_entry)) {
    const model::TimelineEntry& from = timing.timeline[i];
    const shmgemm_timeline_entry entry{from.core, from.kind, from.start, from.end, from.amount};
    std::memcpy(at, &entry, sizeof entry);
  }
  return report.head.bytes;
}

}  // namespace shmgemm::engine
