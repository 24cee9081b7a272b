// The interfaces under the load they were made for: a model of DMA and double buffering over a
// memory of limited bandwidth, as events. Both are toys of this test; their cycles are worked out
// by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "model/event_queue.h"
#include "model/memory.h"
#include "model/timing_model.h"

namespace shmgemm::model {
namespace {

// Serves one transfer after another, so many bytes a cycle, each after a fixed latency.
class BandwidthMemory final : public Memory {
 public:
  BandwidthMemory(Scheduler& scheduler, std::uint64_t bytes_per_cycle, Cycle latency)
      : scheduler_(scheduler), bytes_per_cycle_(bytes_per_cycle), latency_(latency) {}

  void read(const Extent& extent, std::function<void()> done) override {
    extents.push_back(extent);
    serve(extent, std::move(done));
  }
  void write(const Extent& extent, std::function<void()> done) override {
    serve(extent, std::move(done));
  }

  std::vector<Extent> extents;  // read so far

 private:
  void serve(const Extent& extent, std::function<void()> done) {
    const Cycle begin = std::max(free_, scheduler_.now());
    free_ = begin + (extent.total_bytes() + bytes_per_cycle_ - 1) / bytes_per_cycle_;
    scheduler_.at(free_ + latency_, std::move(done));
  }

  Scheduler& scheduler_;
  std::uint64_t bytes_per_cycle_;
  Cycle latency_;
  Cycle free_ = 0;
};

// Tiles of the whole K by kTile columns of B; while one is used, the next is fetched into the other
// buffer.
class DoubleBuffered final : public TimingModel {
 public:
  static constexpr std::uint64_t kTile = 4;

  DoubleBuffered(Scheduler& scheduler, Memory& memory, Cycle tile_cycles)
      : scheduler_(scheduler), memory_(memory), tile_cycles_(tile_cycles) {}

  void start(const GemmShape& shape, Done done) override {
    shape_ = shape;
    done_ = std::move(done);
    timing_ = {};
    begin_ = scheduler_.now();
    tiles_ = shape.n / kTile;
    fetched_ = loaded_ = computed_ = 0;
    fetch();
    fetch();
  }
  std::uint64_t peak_macs_per_cycle() const override { return kTile * kTile; }

 private:
  void fetch() {
    if (fetched_ == tiles_) return;
    Extent tile;
    tile.address = shape_.placement[kB].address + fetched_ * kTile * shape_.input_bytes;
    tile.bytes = kTile * shape_.input_bytes;
    tile.rows = shape_.k;
    tile.pitch_bytes = shape_.placement[kB].pitch_bytes;
    timing_.read_bytes[kMemory][kB] += tile.total_bytes();
    ++fetched_;
    memory_.read(tile, [this] {
      ++loaded_;
      compute();
    });
  }

  void compute() {
    if (computing_ || computed_ == loaded_) return;
    computing_ = true;
    const Cycle now = scheduler_.now();
    timing_.timeline.push_back({0, 0, now, now + tile_cycles_});
    scheduler_.at(now + tile_cycles_, [this] { computed(); });
  }

  void computed() {
    computing_ = false;
    ++computed_;
    timing_.busy += tile_cycles_;
    if (computed_ < tiles_) {
      fetch();
      compute();
      return;
    }
    timing_.memory_stall = scheduler_.now() - begin_ - timing_.busy;
    std::exchange(done_, nullptr)(timing_);
  }

  Scheduler& scheduler_;
  Memory& memory_;
  Cycle tile_cycles_;
  GemmShape shape_;
  Done done_;
  GemmTiming timing_;
  Cycle begin_ = 0;
  std::uint64_t tiles_ = 0, fetched_ = 0, loaded_ = 0, computed_ = 0;
  bool computing_ = false;
};

GemmShape four_tiles() {
  GemmShape shape;
  shape.m = 8;
  shape.n = 16;
  shape.k = 10;
  shape.placement[kB].address = 4096;
  shape.placement[kB].pitch_bytes = 64;
  return shape;  // one tile: 10 rows of 16 bytes
}

GemmTiming run(std::uint64_t bytes_per_cycle, Cycle latency, Cycle tile_cycles,
               std::vector<Extent>* extents = nullptr) {
  EventQueue queue;
  BandwidthMemory memory(queue, bytes_per_cycle, latency);
  DoubleBuffered model(queue, memory, tile_cycles);
  GemmTiming result;
  model.start(four_tiles(), [&](const GemmTiming& timing) { result = timing; });
  while (!queue.empty()) queue.run_next();
  EXPECT_EQ(queue.now(), result.total());
  if (extents != nullptr) *extents = memory.extents;
  return result;
}

TEST(DoubleBuffering, ComputeBoundStallsForTheFirstTileOnly) {
  // A tile takes 160 B / 16 B = 10 cycles and 5 of latency; computing it 20: 15 + 4 * 20.
  const GemmTiming timing = run(16, 5, 20);
  EXPECT_EQ(timing.total(), 95u);
  EXPECT_EQ(timing.memory_stall, 15u);
  EXPECT_EQ(timing.busy, 80u);
}

TEST(DoubleBuffering, MemoryBoundRunsAtTheSpeedOfTheMemory) {
  // A tile takes 40 cycles, computing it 3; a third fetch waits for the second buffer to be empty,
  // at 43, but the memory is then busy with the second until 80. So loads end at 40, 80, 120, 160.
  const GemmTiming timing = run(4, 0, 3);
  EXPECT_EQ(timing.total(), 163u);
  EXPECT_EQ(timing.busy, 12u);
  EXPECT_EQ(timing.memory_stall, 151u);
}

TEST(DoubleBuffering, ATileOfARowMajorMatrixIsOneTransfer) {
  std::vector<Extent> extents;
  const GemmTiming timing = run(16, 0, 1, &extents);
  ASSERT_EQ(extents.size(), 4u);
  for (std::uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(extents[i].address, 4096 + 16 * i);
    EXPECT_EQ(extents[i].bytes, 16u);
    EXPECT_EQ(extents[i].rows, 10u);
    EXPECT_EQ(extents[i].pitch_bytes, 64u);
  }
  EXPECT_EQ(timing.read_bytes[kMemory][kB], 640u);
  EXPECT_EQ(timing.timeline.size(), 4u);
}

}  // namespace
}  // namespace shmgemm::model
