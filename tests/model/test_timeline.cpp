// A timeline keeps sums and order whatever is left out, and one resolution over the whole time.
#include "model/timeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace shmgemm::model {
namespace {

TEST(Timeline, IntervalsThatTouchBecomeOne) {
  Timeline timeline(64, 1);
  timeline.add(0, kLoad, 10, 20, 5);
  timeline.add(0, kLoad, 20, 30, 6);
  timeline.add(0, kLoad, 25, 27, 1);
  timeline.add(0, kLoad, 40, 41, 2);
  timeline.add(0, kStall, 15, 15, 9);  // lasts no time
  const auto entries = timeline.take();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].start, 10u);
  EXPECT_EQ(entries[0].end, 30u);
  EXPECT_EQ(entries[0].amount, 12u);
  EXPECT_EQ(entries[1].start, 40u);
}

TEST(Timeline, CoresForWhichNothingIsLeftAreNotKept) {
  Timeline timeline(400, 1000);
  for (std::uint64_t core = 0; core < 1000; ++core) timeline.add(core, kLoad, 0, 1, 1);
  const auto entries = timeline.take();
  ASSERT_EQ(entries.size(), 50u);
  EXPECT_EQ(entries.back().core, 49u);
}

TEST(Timeline, AnyNumberOfIntervalsFitsEvenly) {
  std::mt19937_64 random(1);
  for (const std::size_t count : {7u, 8u, 9u, 15u, 16u, 17u, 100u, 1001u, 4096u}) {
    Timeline timeline(8 * kActivityKinds, 1);
    Cycle at = 0;
    std::uint64_t whole = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t amount = random() % 100;
      whole += amount;
      timeline.add(0, kCompute, at, at + 1, amount);
      at += 2;
    }
    const auto entries = timeline.take();
    EXPECT_LE(entries.size(), 8u) << count;
    EXPECT_GE(entries.size(), std::min<std::size_t>(count, 4)) << count;
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      sum += entries[i].amount;
      if (i > 0) {
        EXPECT_LT(entries[i - 1].end, entries[i].start) << count;
      }
      if (i > 0 && i + 1 < entries.size()) {
        EXPECT_EQ(entries[i].end - entries[i].start, entries[0].end - entries[0].start) << count;
      }
    }
    EXPECT_EQ(sum, whole) << count;
    EXPECT_EQ(entries.front().start, 0u);
    EXPECT_EQ(entries.back().end, at - 1);
  }
}

}  // namespace
}  // namespace shmgemm::model
