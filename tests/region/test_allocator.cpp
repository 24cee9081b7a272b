// The allocator against a list of live blocks: nothing overlaps, nothing is lost, alignment holds.
#include "region/allocator.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

#include "abi/shmgemm_abi.h"

namespace {

using shmgemm::region::Allocator;

constexpr std::uint64_t kBegin = 2 << 20;
constexpr std::uint64_t kEnd = 34 << 20;

TEST(Allocator, AlignsBlocks) {
  Allocator arena(kBegin, kEnd);
  EXPECT_NE(arena.allocate(1), 0u);
  const std::uint64_t small = arena.allocate(100);
  EXPECT_EQ(small % SHMGEMM_BLOCK_ALIGN, 0u);
  const std::uint64_t large = arena.allocate(SHMGEMM_LARGE_BLOCK_BYTES);
  EXPECT_EQ(large % SHMGEMM_PAGE_BYTES, 0u);
}

TEST(Allocator, RefusesWhatDoesNotFit) {
  Allocator arena(kBegin, kEnd);
  EXPECT_EQ(arena.allocate(kEnd - kBegin + 1), 0u);
  EXPECT_EQ(arena.allocate(UINT64_MAX), 0u);
  EXPECT_EQ(arena.used_bytes(), 0u);
  const std::uint64_t all = arena.allocate(kEnd - kBegin);
  EXPECT_EQ(all, kBegin);
  EXPECT_EQ(arena.allocate(1), 0u);
  arena.release(all);
  EXPECT_EQ(arena.largest_free_bytes(), kEnd - kBegin);
}

TEST(Allocator, AHeldBlockIsNotFreed) {
  Allocator arena(kBegin, kEnd);
  const std::uint64_t block = arena.allocate(4096);
  std::uint64_t first_byte = 0;
  ASSERT_TRUE(arena.retain_containing(block + 4095, &first_byte));
  EXPECT_EQ(first_byte, block);
  arena.release(block);
  EXPECT_EQ(arena.used_bytes(), 4096u);
  EXPECT_NE(arena.allocate(4096), block);
  arena.release(block);
  EXPECT_EQ(arena.used_bytes(), 4096u);  // the other one
}

TEST(Allocator, KnowsWhatLiesInNoBlock) {
  Allocator arena(kBegin, kEnd);
  const std::uint64_t block = arena.allocate(64);
  std::uint64_t first_byte = 0;
  EXPECT_FALSE(arena.retain_containing(block + 64, &first_byte));
  EXPECT_FALSE(arena.retain_containing(0, &first_byte));
  arena.release(block);
  EXPECT_FALSE(arena.retain_containing(block, &first_byte));
}

TEST(Allocator, ReleasingAStrangerIsHarmless) {
  Allocator arena(kBegin, kEnd);
  const std::uint64_t block = arena.allocate(64);
  arena.release(block + 1);
  arena.release(12345);
  EXPECT_EQ(arena.used_bytes(), 64u);
}

TEST(Allocator, RandomTrafficNeverOverlapsAndComesBackWhole) {
  std::mt19937_64 random(7);
  Allocator arena(kBegin, kEnd);
  std::map<std::uint64_t, std::uint64_t> live;  // offset -> bytes asked for
  for (int step = 0; step < 20000; ++step) {
    if (live.empty() || random() % 100 < 55) {
      const std::uint64_t bytes = 1 + random() % (1ull << (random() % 22));
      const std::uint64_t offset = arena.allocate(bytes);
      if (offset == 0) continue;
      ASSERT_GE(offset, kBegin);
      ASSERT_LE(offset + bytes, kEnd);
      const auto next = live.lower_bound(offset);
      if (next != live.end()) {
        ASSERT_LE(offset + bytes, next->first);
      }
      if (next != live.begin()) {
        ASSERT_LE(std::prev(next)->first + std::prev(next)->second, offset);
      }
      live[offset] = bytes;
    } else {
      auto victim = live.begin();
      std::advance(victim, random() % live.size());
      arena.release(victim->first);
      live.erase(victim);
    }
  }
  for (const auto& [offset, bytes] : live) arena.release(offset);
  EXPECT_EQ(arena.used_bytes(), 0u);
  EXPECT_EQ(arena.allocate(kEnd - kBegin), kBegin);
}

}  // namespace
