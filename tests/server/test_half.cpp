// float16 against its definition: every value survives the way out and back, and rounding is to
// nearest, ties to even, as found by looking at the two neighbours.
#include <gtest/gtest.h>

#include <cmath>

#include "server/half.h"

namespace {

using shmgemm::server::narrow_half;
using shmgemm::server::widen_half;

TEST(Half, RoundTrips) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float wide = widen_half(half);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(widen_half(narrow_half(wide))));
    } else {
      ASSERT_EQ(narrow_half(wide), half) << wide;
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  for (std::uint16_t half = 0; half < 0x7bff; ++half) {
    const float below = widen_half(half), above = widen_half(static_cast<std::uint16_t>(half + 1));
    const float middle = below + (above - below) / 2;
    const auto even = static_cast<std::uint16_t>(half % 2 == 0 ? half : half + 1);
    ASSERT_EQ(narrow_half(middle), even) << middle;
    ASSERT_EQ(narrow_half(std::nextafter(middle, 0.0f)), half) << middle;
    ASSERT_EQ(narrow_half(std::nextafter(middle, INFINITY)), half + 1) << middle;
    ASSERT_EQ(narrow_half(-middle), even | 0x8000) << middle;
  }
}

TEST(Half, Overflows) {
  EXPECT_EQ(narrow_half(65519.0f), 0x7bff);
  EXPECT_EQ(narrow_half(65520.0f), 0x7c00);
  EXPECT_EQ(narrow_half(-INFINITY), 0xfc00);
}

}  // namespace
