// The order of additions, bit by bit, against a scalar loop written here that shares nothing with
// the kernel: operands are decoded and results rounded in float64. Every vector unit of this CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "compute/bit_accurate.h"
#include "product.h"

namespace shmgemm::compute {
namespace {

constexpr Dtype kFloats[] = {Dtype::kFloat32, Dtype::kFloat16, Dtype::kBfloat16};
constexpr std::uint64_t kLengths[] = {1, 2, 3, 4, 7, 16, 100, 128, 256, 300, 1u << 20};

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct Format {
  int exponent_bits, mantissa_bits;
};

Format format_of(Dtype dtype) {
  return dtype == Dtype::kFloat16    ? Format{5, 10}
         : dtype == Dtype::kBfloat16 ? Format{8, 7}
                                     : Format{8, 23};
}

// To nearest even, in float64, where every quotient here is exact.
std::uint32_t rounded_bits(Dtype dtype, float value) {
  const auto [exponent_bits, mantissa_bits] = format_of(dtype);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const std::uint32_t infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
  if (std::isnan(value)) return infinity | 1u << (mantissa_bits - 1);
  const std::uint32_t sign = std::signbit(value) ? 1u << (exponent_bits + mantissa_bits) : 0u;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(value)) return sign | infinity;
  if (magnitude == 0) return sign;
  const int exponent = std::max(std::ilogb(magnitude), 1 - bias);
  const double steps = std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent));
  const double result = std::ldexp(steps, exponent - mantissa_bits);
  if (result >= std::ldexp(1.0, bias + 1)) return sign | infinity;
  // Counting steps carries over from subnormals to normals and from one exponent to the next.
  const std::uint32_t base = static_cast<std::uint32_t>(exponent + bias - 1) << mantissa_bits;
  return sign | (base + static_cast<std::uint32_t>(steps));
}

class Loop {
 public:
  explicit Loop(const Gemm& gemm) : g_(gemm) {}

  // As C must hold it; call before C is written.
  std::uint32_t bits(std::uint64_t entry, std::uint64_t row, std::uint64_t column) const {
    return g_.input == Dtype::kInt8 ? whole(entry, row, column) : rounded(entry, row, column);
  }
  std::uint64_t c_index(std::uint64_t entry, std::uint64_t row, std::uint64_t column) const {
    return entry * g_.stride_c + row * g_.ldc + column;
  }

 private:
  static double at(Dtype dtype, const void* base, std::uint64_t index) {
    return load(dtype, static_cast<const std::uint8_t*>(base), index);
  }
  double a(std::uint64_t entry, std::uint64_t row, std::uint64_t k) const {
    const std::uint64_t index = g_.transpose_a ? k * g_.lda + row : row * g_.lda + k;
    return at(g_.input, g_.a, entry * g_.stride_a + index);
  }
  double b(std::uint64_t entry, std::uint64_t k, std::uint64_t column) const {
    const std::uint64_t index = g_.transpose_b ? column * g_.ldb + k : k * g_.ldb + column;
    return at(g_.input, g_.b, entry * g_.stride_b + index);
  }

  std::uint32_t rounded(std::uint64_t entry, std::uint64_t row, std::uint64_t column) const {
    float total = 0;
    for (std::uint64_t first = 0; first < g_.k; first += g_.accumulation_length) {
      const std::uint64_t end = std::min<std::uint64_t>(g_.k, first + g_.accumulation_length);
      float sum = 0;
      for (std::uint64_t k = first; k < end; ++k) {
        // A product of two float32 is exact in float64.
        const float product = static_cast<float>(a(entry, row, k) * b(entry, k, column));
        sum = sum + product;
      }
      total = total + sum;
    }
    if (g_.bias != nullptr) total += static_cast<const float*>(g_.bias)[column];
    if (g_.accumulate) {
      total += static_cast<float>(at(g_.output, g_.c, c_index(entry, row, column)));
    }
    return rounded_bits(g_.output, total);
  }

  std::uint32_t whole(std::uint64_t entry, std::uint64_t row, std::uint64_t column) const {
    std::int64_t sum = 0;
    for (std::uint64_t k = 0; k < g_.k; ++k) {
      sum += static_cast<std::int64_t>(a(entry, row, k)) *
             static_cast<std::int64_t>(b(entry, k, column));
    }
    if (g_.bias != nullptr) sum += static_cast<const std::int32_t*>(g_.bias)[column];
    if (g_.accumulate) {
      sum += static_cast<std::int64_t>(at(g_.output, g_.c, c_index(entry, row, column)));
    }
    return static_cast<std::uint32_t>(sum);
  }

  Gemm g_;
};

std::uint32_t stored_bits(const Gemm& gemm, std::uint64_t index) {
  if (gemm.output == Dtype::kFloat16 || gemm.output == Dtype::kBfloat16) {
    return static_cast<const std::uint16_t*>(gemm.c)[index];
  }
  return static_cast<const std::uint32_t*>(gemm.c)[index];
}

// Runs the product on each vector unit and on engines of 1 to 4 threads; each time from the same C.
// `change` may put special values into A, B and bias.
template <typename Change>
void expect_bits(const Case& which, std::uint64_t length, std::uint32_t seed, Change change) {
  std::vector<std::uint32_t> expected;
  const auto each = [&](const Loop& loop, auto&& visit) {
    for (std::uint64_t entry = 0; entry < which.batch; ++entry) {
      for (std::uint64_t row = 0; row < which.m; ++row) {
        for (std::uint64_t column = 0; column < which.n; ++column) {
          visit(entry, row, column, loop.c_index(entry, row, column));
        }
      }
    }
  };
  const auto run = [&](const std::string& how, auto&& call) {
    Product product(which, seed);
    Gemm gemm = product.gemm();
    gemm.accumulation_length = length;
    change(gemm);
    const Loop loop(gemm);
    if (expected.empty()) {
      each(loop, [&](auto entry, auto row, auto column, std::uint64_t) {
        expected.push_back(loop.bits(entry, row, column));
      });
    }
    call(gemm);
    std::size_t next = 0, wrong = 0;
    each(loop, [&](auto entry, auto row, auto column, std::uint64_t index) {
      const std::uint32_t wanted = expected[next++], got = stored_bits(gemm, index);
      if (wanted != got && ++wrong == 1) {
        ADD_FAILURE() << text(which) << " length " << length << ", " << how << ": C[" << entry
                      << "][" << row << "][" << column << "] is " << std::hex << got << ", not "
                      << wanted;
      }
    });
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(product.outside(), "") << how;
  };
  if (which.input != Dtype::kInt8) {
    for (const VectorUnit unit : usable_vector_units()) {
      run("unit " + std::to_string(static_cast<int>(unit)), [&](const Gemm& gemm) {
        for (std::uint64_t entry = 0; entry < gemm.batch; ++entry) {
          run_bit_accurate(gemm, {0, gemm.batch, 0, gemm.m, 0, gemm.n}, entry, unit);
        }
      });
    }
  }
  for (unsigned threads = 1; threads <= 4; ++threads) {
    run(std::to_string(threads) + " threads", [&](const Gemm& gemm) { Engine(threads).run(gemm); });
  }
}

void expect_bits(const Case& which, std::uint64_t length, std::uint32_t seed = 1) {
  expect_bits(which, length, seed, [](Gemm&) {});
}

std::vector<std::pair<Dtype, Dtype>> float_pairs() {
  std::vector<std::pair<Dtype, Dtype>> all;
  for (const Dtype input : kFloats) {
    for (const Dtype output : kFloats) all.emplace_back(input, output);
  }
  return all;
}

std::vector<std::pair<Dtype, Dtype>> pairs() {
  auto all = float_pairs();
  all.emplace_back(Dtype::kInt8, Dtype::kInt32);
  return all;
}

class BitAccurate : public testing::TestWithParam<std::pair<Dtype, Dtype>> {
 protected:
  Case shape(std::uint32_t m, std::uint32_t n, std::uint32_t k) const {
    Case which;
    which.m = m;
    which.n = n;
    which.k = k;
    which.input = GetParam().first;
    which.output = GetParam().second;
    return which;
  }
};

class BitAccurateFloats : public BitAccurate {};

TEST_P(BitAccurate, EveryLength) {
  for (const std::uint64_t length : kLengths) expect_bits(shape(6, 37, 301), length);
}

TEST_P(BitAccurate, TransposesBiasAccumulateAndPadding) {
  for (unsigned bits = 0; bits < 32; ++bits) {
    Case which = shape(19, 45, 270);
    which.transpose_a = (bits & 1) != 0;
    which.transpose_b = (bits & 2) != 0;
    which.bias = (bits & 4) != 0;
    which.accumulate = (bits & 8) != 0;
    which.pad = (bits & 16) != 0 ? 3 : 0;
    expect_bits(which, 16);
  }
}

TEST_P(BitAccurate, ManyPiecesAndBlocks) {
  for (unsigned bits = 0; bits < 4; ++bits) {
    Case which = shape(140, 530, 60);
    which.transpose_a = (bits & 1) != 0;
    which.transpose_b = (bits & 2) != 0;
    which.bias = which.accumulate = true;
    which.pad = 1;
    expect_bits(which, 24);
  }
}

TEST_P(BitAccurate, Batches) {
  for (unsigned bits = 0; bits < 8; ++bits) {
    Case which = shape(9, 21, 30);
    which.batch = 13;
    which.one_a = (bits & 1) != 0;
    which.one_b = (bits & 2) != 0;
    which.bias = which.accumulate = which.transpose_b = (bits & 4) != 0;
    which.pad = 2;
    expect_bits(which, 8);
  }
}

TEST_P(BitAccurate, RandomCases) {
  std::mt19937 random(7);
  for (std::uint32_t round = 0; round < 40; ++round) {
    Case which = shape(1 + random() % 20, 1 + random() % 70, 1 + random() % 600);
    which.batch = 1 + random() % 2;
    which.transpose_a = random() % 2 != 0;
    which.transpose_b = random() % 2 != 0;
    which.bias = random() % 2 != 0;
    which.accumulate = random() % 2 != 0;
    which.pad = random() % 3;
    expect_bits(which, 1 + random() % 300, round);
  }
}

// Signs, zeros, both ends of the subnormals, the largest number, infinities and NaNs with payloads
// in A, B, bias and C. Sums are short, or all would be NaN.
TEST_P(BitAccurateFloats, SpecialValues) {
  const auto put = [](Dtype dtype, const void* base, std::uint64_t count, std::mt19937& random) {
    const auto [exponent_bits, mantissa_bits] = format_of(dtype);
    const std::uint32_t infinity = ((1u << exponent_bits) - 1) << mantissa_bits;
    const std::uint32_t one = ((1u << (exponent_bits - 1)) - 1) << mantissa_bits;
    const std::uint32_t payload = static_cast<std::uint32_t>(random()) & 0x7f;
    const std::uint32_t palette[] = {0,           0,   1,       2,       (1u << mantissa_bits) - 1,
                                     one,         one, one + 1, one + 3, 1u << mantissa_bits,
                                     infinity,    one, one * 2, one / 2, infinity | payload,
                                     infinity - 1};
    for (std::uint64_t i = 0; i < count; ++i) {
      if (random() % 4 == 0) continue;
      const std::uint32_t sign = (random() & 1u) << (exponent_bits + mantissa_bits);
      const std::uint32_t bits = sign | palette[random() % std::size(palette)];
      const std::size_t bytes = (1 + exponent_bits + mantissa_bits) / 8;
      std::memcpy(static_cast<char*>(const_cast<void*>(base)) + i * bytes, &bits, bytes);
    }
  };
  std::uint64_t numbers = 0;
  for (std::uint32_t seed = 1; seed <= 60; ++seed) {
    Case which = shape(5, 70, 1 + seed % 6);
    which.bias = seed % 2 != 0;
    which.accumulate = seed % 4 < 2;
    expect_bits(which, 1 + seed % 4, seed, [&](Gemm& gemm) {
      std::mt19937 random(seed);
      put(gemm.input, gemm.a, gemm.m * gemm.k, random);
      put(gemm.input, gemm.b, gemm.k * gemm.n, random);
      if (which.bias) put(Dtype::kFloat32, gemm.bias, gemm.n, random);
      if (which.accumulate) put(gemm.output, gemm.c, gemm.m * gemm.n, random);
      const Loop loop(gemm);
      for (std::uint64_t column = 0; column < gemm.n; ++column) {
        const std::uint32_t bits = loop.bits(0, 0, column);
        const auto [exponent_bits, mantissa_bits] = format_of(gemm.output);
        const std::uint32_t exponent = ((1u << exponent_bits) - 1) << mantissa_bits;
        numbers += (bits & exponent) != exponent;
      }
    });
  }
  EXPECT_GT(numbers, 1000u);  // not all are infinities and NaNs
}

const auto name_of = [](const auto& info) {
  return "from" + std::to_string(static_cast<int>(info.param.first)) + "to" +
         std::to_string(static_cast<int>(info.param.second));
};
INSTANTIATE_TEST_SUITE_P(Gemm, BitAccurate, testing::ValuesIn(pairs()), name_of);
INSTANTIATE_TEST_SUITE_P(Gemm, BitAccurateFloats, testing::ValuesIn(float_pairs()), name_of);

struct Row {
  std::vector<float> a, b, c;
  Gemm gemm;
  // C[1 x n] of k terms that are the same in every column.
  Row(std::vector<float> left, const std::vector<float>& right, std::uint32_t n)
      : a(std::move(left)), b(right.size() * n), c(n, 7.0f) {
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = right[i / n];
    gemm.m = 1;
    gemm.k = gemm.lda = static_cast<std::uint32_t>(a.size());
    gemm.n = gemm.ldb = gemm.ldc = n;
    gemm.a = a.data();
    gemm.b = b.data();
    gemm.c = c.data();
  }
  void expect_all(std::uint64_t length, std::uint32_t bits) {
    gemm.accumulation_length = length;
    for (const VectorUnit unit : usable_vector_units()) {
      run_bit_accurate(gemm, {0, 1, 0, 1, 0, gemm.n}, 0, unit);
      for (const float value : c) EXPECT_EQ(bits_of(value), bits) << static_cast<int>(unit);
    }
  }
};

TEST(BitAccurateOrder, NothingIsFused) {
  const float x = 1 + std::ldexp(1.0f, -12);  // its square, rounded, is 1 + 2^-11
  Row row({-1 - std::ldexp(1.0f, -11), x}, {1, x}, 67);
  row.expect_all(2, 0);  // fused: 2^-24
}

TEST(BitAccurateOrder, ChunksAreSummedFromZeroAndAddedInOrder) {
  const float big = std::ldexp(1.0f, 24);
  Row row({big, 1, 1, 1, 1, -big}, {1, 1, 1, 1, 1, 1}, 67);
  row.expect_all(6, bits_of(0));  // each 1 is rounded away
  row.expect_all(1, bits_of(0));  // and so it is where each is a chunk
  row.expect_all(2, bits_of(3));  // (big + 1) + (1 + 1) + (1 - big)
  row.expect_all(3, bits_of(2));  // (big + 1 + 1) + (1 + 1 - big)
  row.expect_all(4, bits_of(1));  // (big + 1 + 1 + 1) + (1 - big)
  row.expect_all(1ull << 40, bits_of(0));
}

TEST(BitAccurateOrder, ZerosArePositiveUntilTheLastRounding) {
  Row row({-0.0f, -0.0f, -0.0f}, {1, 1, 1}, 67);
  row.expect_all(2, 0);
  const std::vector<float> bias(67, -0.0f);
  row.gemm.bias = bias.data();
  row.expect_all(2, 0);
  std::vector<std::uint16_t> half(67, 7);
  Row small({-1.0f}, {std::ldexp(1.0f, -30)}, 67);
  small.gemm.c = half.data();
  small.gemm.output = Dtype::kFloat16;
  small.gemm.accumulation_length = 4;
  Engine(1).run(small.gemm);
  EXPECT_EQ(half, std::vector<std::uint16_t>(67, 0x8000));  // a small negative sum, rounded
}

TEST(BitAccurateOrder, SubnormalsAreKeptAndNaNsAreOne) {
  Row sub({std::ldexp(1.0f, -100), std::ldexp(1.0f, -149)}, {std::ldexp(1.0f, -45), 1}, 67);
  sub.expect_all(2, 0x11);
  Row payload({float_of(0xffc12345u), float_of(0x7f812345u)}, {1, 1}, 67);
  payload.expect_all(1, 0x7fc00000u);
  const float infinity = std::numeric_limits<float>::infinity();
  Row difference({infinity, -infinity}, {1, 1}, 67);  // x86 makes a negative NaN of it
  difference.expect_all(2, 0x7fc00000u);
  difference.expect_all(1, 0x7fc00000u);
}

}  // namespace
}  // namespace shmgemm::compute
