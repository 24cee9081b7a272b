// Products of every pair of types against the float64 / int64 triple loop: shapes that cross the
// borders of pieces, tiles and blocks, transposes, leading dimensions, batches, bias and
// accumulation.
#include "compute/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "product.h"

namespace shmgemm::compute {
namespace {

constexpr Dtype kFloats[] = {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBfloat16};

std::vector<std::pair<Dtype, Dtype>> pairs() {
  std::vector<std::pair<Dtype, Dtype>> all;
  for (const Dtype input : kFloats) {
    for (const Dtype output : kFloats) all.emplace_back(input, output);
  }
  all.emplace_back(Dtype::kInt8, Dtype::kInt32);
  return all;
}

class Types : public testing::TestWithParam<std::pair<Dtype, Dtype>> {
 protected:
  void expect_right(Case which) {
    which.input = GetParam().first;
    which.output = GetParam().second;
    Product product(which, which.m * 31 + which.n * 7 + which.k);
    product.run(engine_);
    EXPECT_EQ(product.check(), "");
  }
  Engine engine_{2};
};

TEST_P(Types, ShapesOfEveryKind) {
  const std::uint32_t shapes[][3] = {{1, 1, 1},    {1, 1, 700},   {1, 300, 5},    {300, 1, 5},
                                     {2, 3, 4},    {7, 5, 9},     {17, 33, 65},   {31, 129, 130},
                                     {8, 400, 90}, {64, 65, 400}, {257, 258, 40}, {3, 1000, 770}};
  for (const auto& shape : shapes) {
    Case which;
    which.m = shape[0];
    which.n = shape[1];
    which.k = shape[2];
    expect_right(which);
  }
}

TEST_P(Types, TransposesBiasAccumulateAndPadding) {
  for (unsigned bits = 0; bits < 32; ++bits) {
    Case which;
    which.m = 19;
    which.n = 45;
    which.k = 390;
    which.transpose_a = (bits & 1) != 0;
    which.transpose_b = (bits & 2) != 0;
    which.bias = (bits & 4) != 0;
    which.accumulate = (bits & 8) != 0;
    which.pad = (bits & 16) != 0 ? 3 : 0;
    expect_right(which);
  }
}

TEST_P(Types, ManyPiecesAndBlocks) {
  for (unsigned bits = 0; bits < 4; ++bits) {
    Case which;
    which.m = 270;
    which.n = 300;
    which.k = 150;
    which.transpose_a = (bits & 1) != 0;
    which.transpose_b = (bits & 2) != 0;
    which.bias = which.accumulate = true;
    which.pad = 1;
    expect_right(which);
  }
}

TEST_P(Types, Batches) {
  for (unsigned bits = 0; bits < 8; ++bits) {
    Case which;
    which.m = 9;
    which.n = 21;
    which.k = 30;
    which.batch = 13;
    which.one_a = (bits & 1) != 0;
    which.one_b = (bits & 2) != 0;
    which.bias = which.accumulate = which.transpose_b = (bits & 4) != 0;
    which.pad = 2;
    expect_right(which);
  }
}

TEST_P(Types, BatchOfLargeEntriesIsCutWithinAnEntry) {
  Case which;
  which.m = 64;
  which.n = 400;
  which.k = 200;
  which.batch = 2;
  which.pad = 5;
  expect_right(which);
}

TEST_P(Types, RandomCases) {
  std::mt19937 random(20);
  for (int round = 0; round < 60; ++round) {
    Case which;
    which.m = 1 + random() % 40;
    which.n = 1 + random() % 90;
    which.k = 1 + random() % 500;
    which.batch = 1 + random() % 3;
    which.transpose_a = random() % 2 != 0;
    which.transpose_b = random() % 2 != 0;
    which.bias = random() % 2 != 0;
    which.accumulate = random() % 2 != 0;
    which.pad = random() % 4;
    expect_right(which);
  }
}

INSTANTIATE_TEST_SUITE_P(Gemm, Types, testing::ValuesIn(pairs()), [](const auto& info) {
  return "from" + std::to_string(static_cast<int>(info.param.first)) + "to" +
         std::to_string(static_cast<int>(info.param.second));
});

TEST(Int8, ExactBeyondWhatFloat32Holds) {
  Case which;
  which.m = 3;
  which.n = 5;
  which.k = 5000;
  which.input = Dtype::kInt8;
  which.output = Dtype::kInt32;
  Product product(which);
  for (std::uint64_t i = 0; i < which.m * which.k; ++i) product.set_a(i, -128);
  for (std::uint64_t i = 0; i < which.k * which.n; ++i) product.set_b(i, i % 7 == 0 ? 127 : -128);
  Engine engine(1);
  product.run(engine);
  EXPECT_EQ(product.check(), "");
  EXPECT_GT(product.c(0, 0), 1 << 24);
}

TEST(Int8, SumsWrapAround) {
  const std::int8_t a = 100;
  const std::int8_t b = 100;
  const std::int32_t bias = std::numeric_limits<std::int32_t>::max();
  std::int32_t c = 5;
  Gemm gemm;
  gemm.m = gemm.n = gemm.k = gemm.lda = gemm.ldb = gemm.ldc = 1;
  gemm.a = &a;
  gemm.b = &b;
  gemm.c = &c;
  gemm.bias = &bias;
  gemm.accumulate = true;
  gemm.input = Dtype::kInt8;
  gemm.output = Dtype::kInt32;
  Engine(1).run(gemm);
  EXPECT_EQ(c, std::numeric_limits<std::int32_t>::min() + 10004);
}

// NaN and infinity reach exactly the elements they belong to, in every kernel OpenBLAS may choose.
class Specials : public testing::TestWithParam<Dtype> {};

TEST_P(Specials, NanAndInfinityPassThrough) {
  const std::uint32_t shapes[][3] = {
      {1, 40, 30}, {40, 1, 30}, {5, 40, 30}, {100, 130, 300}, {1, 1, 64}};
  for (const auto& shape : shapes) {
    for (int transposes = 0; transposes < 4; ++transposes) {
      Case which;
      which.m = shape[0];
      which.n = shape[1];
      which.k = shape[2];
      which.input = which.output = GetParam();
      which.transpose_a = (transposes & 1) != 0;
      which.transpose_b = (transposes & 2) != 0;
      Product product(which);
      // Row 0 of A: zero, then infinity times B's zero in column 0 would be NaN; B[0][0] =
      // infinity.
      const std::uint64_t a_step = which.transpose_a ? which.m : 1;
      for (std::uint64_t k = 0; k < which.k; ++k) product.set_a(k * a_step, 0);
      product.set_b(0, HUGE_VAL);
      Engine engine(2);
      product.run(engine);
      EXPECT_TRUE(std::isnan(product.c(0, 0))) << text(which);  // 0 * inf
      if (which.n > 1) {
        EXPECT_EQ(product.c(0, 1), 0) << text(which);
      }
      if (which.m > 1) {
        EXPECT_TRUE(std::isinf(product.c(1, 0))) << text(which);
      }
      if (which.m > 1 && which.n > 1) {
        EXPECT_TRUE(std::isfinite(product.c(1, 1))) << text(which);
      }
      product.set_a(0, std::nan(""));
      product.run(engine);
      for (std::uint64_t n = 0; n < which.n; ++n)
        EXPECT_TRUE(std::isnan(product.c(0, n))) << text(which);
      if (which.m > 1 && which.n > 1) {
        EXPECT_TRUE(std::isfinite(product.c(1, 1))) << text(which);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gemm, Specials, testing::ValuesIn(kFloats), [](const auto& info) {
  return "dtype" + std::to_string(static_cast<int>(info.param));
});

TEST(Float32, SubnormalsAreKept) {
  const float a = std::ldexp(1.0f, -100);
  const float b = std::ldexp(1.0f, -45);
  float c = 0;
  Gemm gemm;
  gemm.m = gemm.n = gemm.k = gemm.lda = gemm.ldb = gemm.ldc = 1;
  gemm.a = &a;
  gemm.b = &b;
  gemm.c = &c;
  Engine(1).run(gemm);
  EXPECT_EQ(c, std::ldexp(1.0f, -145));
}

TEST(Float16, OverflowsToInfinityAndRoundsOnce) {
  // 2048 + 1 + 2^-20: float16 of the exact sum is 2050, of a sum rounded early 2048.
  const float a[3] = {2048, 1, std::ldexp(1.0f, -10)};
  const float b[3] = {1, 1, 1};
  std::uint16_t c = 0;
  Gemm gemm;
  gemm.m = gemm.n = gemm.ldb = gemm.ldc = 1;
  gemm.k = gemm.lda = 3;
  gemm.a = a;
  gemm.b = b;
  gemm.c = &c;
  gemm.output = Dtype::kFloat16;
  Engine engine(1);
  engine.run(gemm);
  EXPECT_EQ(c, 0x6801);  // 2050
  const float huge[3] = {60000, 60000, 1};
  gemm.a = huge;
  engine.run(gemm);
  EXPECT_EQ(c, 0x7c00);
}

TEST(Gemm, OneRowMayHaveAnyLeadingDimension) {
  Case which;
  which.n = 6;
  which.k = 1;
  Product product(which);
  Gemm gemm = product.gemm();
  gemm.lda = gemm.ldb = gemm.ldc = 0xffffffffu;
  Engine(1).run(gemm);
  EXPECT_EQ(product.check(), "");
}

TEST(Gemm, SupportsWhatItSays) {
  for (int input = 0; input < 8; ++input) {
    for (int output = 0; output < 8; ++output) {
      const bool floats = input >= 1 && input <= 3 && output >= 1 && output <= 3;
      EXPECT_EQ(supports(static_cast<Dtype>(input), static_cast<Dtype>(output)),
                floats || (input == 4 && output == 5))
          << input << "->" << output;
    }
  }
}

}  // namespace
}  // namespace shmgemm::compute
