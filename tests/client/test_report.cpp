// Reports on GEMMs as an engine might have written them: what is read is right, or it is refused.
#include "client/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "region/error.h"

namespace shmgemm::client {
namespace {

class Memory final : public Block {
 public:
  void* data() const override { return bytes_.data(); }
  std::uint64_t bytes() const override { return bytes_.size(); }
  std::uint64_t offset() const override { return 0; }

 private:
  mutable std::vector<std::byte> bytes_ = std::vector<std::byte>(SHMGEMM_REPORT_BYTES);
};

// A good report of three entries in memory, and the completion that goes with it.
struct Written {
  Written() {
    head.head = {SHMGEMM_REPORT_GEMM, sizeof head + 3 * sizeof(shmgemm_timeline_entry)};
    head.macs = 77;
    head.peak_macs_per_cycle = 4;
    head.mapping_efficiency = head.compute_utilization = 0.5;
    head.timeline_count = 3;
    completion.start_cycles = 1000;
    completion.end_cycles = 1100;
    completion.report_bytes = head.head.bytes;
  }

  GemmReport read() {
    auto* at = static_cast<std::byte*>(memory.data());
    std::memcpy(at, &head, sizeof head);
    std::memcpy(at + sizeof head, entries, sizeof entries);
    return read_gemm_report(memory, completion);
  }

  bool refused() {
    try {
      read();
    } catch (const ProtocolError&) {
      return true;
    }
    return false;
  }

  Memory memory;
  shmgemm_gemm_report head{};
  shmgemm_timeline_entry entries[3] = {{0, SHMGEMM_ACTIVITY_LOAD, 1000, 1020, 4096},
                                       {0, SHMGEMM_ACTIVITY_COMPUTE, 1020, 1100, 64},
                                       {1, SHMGEMM_ACTIVITY_STALL, 1000, 1020, 20}};
  shmgemm_completion completion{};
};

TEST(Report, IsReadWhole) {
  Written written;
  const GemmReport report = written.read();
  EXPECT_EQ(report.head.macs, 77u);
  ASSERT_EQ(report.timeline.size(), 3u);
  EXPECT_EQ(std::memcmp(report.timeline.data(), written.entries, sizeof written.entries), 0);
}

TEST(Report, NoneIsZero) {
  Written written;
  written.completion.report_bytes = 0;
  const GemmReport report = written.read();
  EXPECT_EQ(report.head.macs, 0u);
  EXPECT_TRUE(report.timeline.empty());
}

TEST(Report, IsRefusedWhereSizesDisagree) {
  for (const int change : {-1, 1, 32, -32}) {
    Written announced, wrote;
    announced.head.head.bytes += static_cast<std::uint32_t>(change);
    wrote.completion.report_bytes += static_cast<std::uint32_t>(change);
    EXPECT_TRUE(announced.refused()) << change;
    EXPECT_TRUE(wrote.refused()) << change;
  }
  Written count, part;
  count.head.timeline_count = 0xffffffff;
  EXPECT_TRUE(count.refused());
  part.completion.report_bytes = 8;
  EXPECT_TRUE(part.refused());
}

TEST(Report, IsRefusedWhereAFieldCannotBe) {
  Written kind, share, nan, late, idle, parts, wraps;
  kind.head.head.kind = SHMGEMM_REPORT_INFO;
  share.head.compute_utilization = 1.5;
  nan.head.mapping_efficiency = std::nan("");
  late.entries[1].end_cycles = 1101;
  idle.head.peak_macs_per_cycle = 0;
  parts.completion.busy_cycles = parts.completion.memory_stall_cycles = 51;
  wraps.completion.busy_cycles = wraps.completion.fill_drain_cycles = std::uint64_t{1} << 63;
  for (Written* written : {&kind, &share, &nan, &late, &idle, &parts, &wraps}) {
    EXPECT_TRUE(written->refused());
  }
}

TEST(Report, NoiseIsRefusedOrLiesWithinTheOp) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    Written written;
    auto* entries = reinterpret_cast<unsigned char*>(written.entries);
    for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
      entries[random() % sizeof written.entries] ^= static_cast<unsigned char>(1u << random() % 8);
    }
    try {
      for (const shmgemm_timeline_entry& entry : written.read().timeline) {
        EXPECT_LT(entry.kind, unsigned{SHMGEMM_ACTIVITIES});
        EXPECT_GE(entry.start_cycles, 1000u);
        EXPECT_LT(entry.start_cycles, entry.end_cycles);
        EXPECT_LE(entry.end_cycles, 1100u);
      }
    } catch (const ProtocolError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace shmgemm::client
