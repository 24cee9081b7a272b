#include "client/report.h"

#include <cstring>
#include <string>

#include "abi/shmgemm_validate.h"

namespace shmgemm::client {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw ProtocolError("the engine's report on a GEMM is not valid: " + what);
}

// Not NaN; a quotient of huge numbers may round to more than 1.
bool is_share(double value) { return value >= 0 && value <= 1 + 1e-9; }

bool parts_fit(const shmgemm_completion& op) {
  std::uint64_t rest = op.end_cycles - op.start_cycles;
  for (const std::uint64_t part : {op.busy_cycles, op.fill_drain_cycles, op.memory_stall_cycles}) {
    if (part > rest) return false;
    rest -= part;
  }
  return true;
}

void check(const GemmReport& report, const shmgemm_completion& completion) {
  const shmgemm_gemm_report& head = report.head;
  if (head.head.kind != SHMGEMM_REPORT_GEMM) {
    refuse("it is of kind " + std::to_string(head.head.kind));
  }
  if (head.head.bytes != completion.report_bytes || head.timeline_count != report.timeline.size()) {
    refuse(std::to_string(completion.report_bytes) + " bytes written, " +
           std::to_string(head.head.bytes) + " announced with " +
           std::to_string(head.timeline_count) + " entries of a timeline");
  }
  if (!is_share(head.mapping_efficiency) || !is_share(head.compute_utilization)) {
    refuse("a share is not between 0 and 1");
  }
  if (head.peak_macs_per_cycle == 0) refuse("a peak of 0 MACs per cycle");
  if (!parts_fit(completion)) refuse("the parts of its cycles are more than the whole");
  if (shmgemm_validate_timeline(report.timeline.data(), head.timeline_count, &completion) !=
      SHMGEMM_STATUS_OK) {
    refuse("its timeline is out of order or leaves the op's cycles");
  }
}

}  // namespace

GemmReport read_gemm_report(const Block& block, const shmgemm_completion& completion) {
  GemmReport report;
  if (completion.report_bytes == 0) return report;
  if (completion.report_bytes < sizeof report.head) {
    refuse(std::to_string(completion.report_bytes) + " bytes, at least " +
           std::to_string(sizeof report.head) + " expected");
  }
  const auto* bytes = static_cast<const std::byte*>(block.data());
  const std::size_t rest = completion.report_bytes - sizeof report.head;
  std::memcpy(&report.head, bytes, sizeof report.head);
  report.timeline.resize(rest / sizeof(shmgemm_timeline_entry));
  if (!report.timeline.empty()) {
    std::memcpy(report.timeline.data(), bytes + sizeof report.head,
                report.timeline.size() * sizeof(shmgemm_timeline_entry));
  }
  if (rest % sizeof(shmgemm_timeline_entry) != 0) refuse("its timeline has a part of an entry");
  check(report, completion);
  return report;
}

}  // namespace shmgemm::client
