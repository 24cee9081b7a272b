// Conversions, exhaustively where 16 bits allow it: against float64 arithmetic written anew here,
// and the vector path against the portable one bit by bit.
#include "compute/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "product.h"

namespace shmgemm::compute {
namespace {

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

double decode(Dtype dtype, std::uint16_t bits) {
  return load(dtype, reinterpret_cast<const std::uint8_t*>(&bits), 0);
}

float widened(Dtype dtype, std::uint16_t bits) {
  return dtype == Dtype::kFloat16 ? widen_float16(bits) : widen_bfloat16(bits);
}

std::uint16_t narrowed(Dtype dtype, float value) {
  return dtype == Dtype::kFloat16 ? narrow_float16(value) : narrow_bfloat16(value);
}

class Halves : public testing::TestWithParam<Dtype> {};

TEST_P(Halves, EveryPatternWidensExactlyAndComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const std::uint16_t half = static_cast<std::uint16_t>(bits);
    const float value = widened(GetParam(), half);
    const double exact = decode(GetParam(), half);
    if (std::isnan(exact)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(decode(GetParam(), narrowed(GetParam(), value)))) << bits;
    } else {
      ASSERT_EQ(value, exact) << bits;
      ASSERT_EQ(std::signbit(value), bits >= 0x8000) << bits;
      ASSERT_EQ(narrowed(GetParam(), value), half);
    }
  }
}

// Between each pair of neighbours: the midpoint goes to the even one, its float32 neighbours to
// either.
TEST_P(Halves, EveryMidpointRoundsToEven) {
  const std::uint32_t infinity = GetParam() == Dtype::kFloat16 ? 0x7c00 : 0x7f80;
  for (std::uint32_t bits = 0; bits < infinity; ++bits) {
    const double low = decode(GetParam(), static_cast<std::uint16_t>(bits));
    double high = decode(GetParam(), static_cast<std::uint16_t>(bits + 1));
    if (std::isinf(high)) high = 2 * std::exp2(std::ilogb(low));
    const float middle = static_cast<float>((low + high) / 2);
    ASSERT_EQ(middle, (low + high) / 2);  // exact in float32
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(narrowed(GetParam(), middle), even) << bits;
    ASSERT_EQ(narrowed(GetParam(), std::nextafter(middle, 0.0f)), bits) << bits;
    ASSERT_EQ(narrowed(GetParam(), std::nextafter(middle, HUGE_VALF)), bits + 1) << bits;
    ASSERT_EQ(narrowed(GetParam(), -middle), even | 0x8000) << bits;
  }
}

TEST_P(Halves, BeyondTheLargestIsInfinityAndNanStaysNan) {
  const std::uint16_t infinity = GetParam() == Dtype::kFloat16 ? 0x7c00 : 0x7f80;
  EXPECT_EQ(narrowed(GetParam(), HUGE_VALF), infinity);
  EXPECT_EQ(narrowed(GetParam(), -HUGE_VALF), infinity | 0x8000);
  EXPECT_EQ(narrowed(GetParam(), 3.4028235e38f), infinity);
  for (std::uint32_t payload = 1; payload < 0x800000; payload = payload * 3 + 1) {
    const std::uint16_t half = narrowed(GetParam(), float_of(0x7f800000 | payload));
    EXPECT_GT(half & 0x7fff, infinity) << payload;
  }
}

TEST_P(Halves, VectorPathGivesThePortableBits) {
  std::vector<std::uint16_t> halves(65536 + 5);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  std::vector<float> vector(halves.size()), portable(halves.size());
  widen(GetParam(), halves.data(), vector.data(), halves.size());
  widen_portable(GetParam(), halves.data(), portable.data(), halves.size());
  EXPECT_EQ(std::memcmp(vector.data(), portable.data(), halves.size() * 4), 0);

  std::vector<float> values;
  std::mt19937 random(3);
  for (int i = 0; i < 1000003; ++i)
    values.push_back(float_of(static_cast<std::uint32_t>(random())));
  for (std::uint32_t top = 0; top < 65536; ++top) {  // every sign, exponent and high mantissa
    for (const std::uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      values.push_back(float_of(top << 16 | low));
    }
  }
  std::vector<std::uint16_t> fast(values.size()), plain(values.size());
  narrow(values.data(), GetParam(), fast.data(), values.size());
  narrow_portable(values.data(), GetParam(), plain.data(), values.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(fast[i], plain[i]) << bits_of(values[i]);
}

INSTANTIATE_TEST_SUITE_P(Convert, Halves, testing::Values(Dtype::kFloat16, Dtype::kBfloat16),
                         [](const auto& info) {
                           return info.param == Dtype::kFloat16 ? "float16" : "bfloat16";
                         });

TEST(Int8, EveryValueWidens) {
  std::vector<std::int8_t> bytes(256 + 3);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::int8_t>(i);
  std::vector<float> values(bytes.size());
  widen(Dtype::kInt8, bytes.data(), values.data(), bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) EXPECT_EQ(values[i], bytes[i]);
}

TEST(Whole, AddsModulo2To32) {
  const std::vector<float> values = {16777216.0f, -16777216.0f, 1, 0};
  const std::vector<std::int32_t> bias = {INT32_MAX, INT32_MIN, INT32_MAX, 7};
  std::vector<std::int32_t> sums = {1, -1, 1, INT32_MIN};
  add_whole(values.data(), sums.data(), 4, sums.data(), bias.data());
  for (int i = 0; i < 4; ++i) {
    const std::int64_t before[] = {1, -1, 1, INT32_MIN};
    const std::int64_t whole = static_cast<std::int64_t>(values[i]) + bias[i] + before[i];
    EXPECT_EQ(static_cast<std::uint32_t>(sums[i]), static_cast<std::uint32_t>(whole));
  }
}

}  // namespace
}  // namespace shmgemm::compute
