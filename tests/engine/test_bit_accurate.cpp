// numerics = "bit_accurate" against the array itself: each timing model's accumulation length and
// the kernel together give the bits of model::PeArray, run register by register on one tile of the
// product after the other, its results added in the order of K.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "compute/convert.h"
#include "compute/gemm.h"
#include "model/event_queue.h"
#include "model/hardware.h"
#include "model/pe_array.h"

namespace shmgemm {
namespace {

using model::Dataflow;
using model::Float32Arithmetic;
using model::Int8Arithmetic;

struct Machine {
  const char* model;
  Dataflow dataflow;
};

constexpr Machine kMachines[] = {{"scalesim_ws", Dataflow::kWeightStationary},
                                 {"scalesim_is", Dataflow::kInputStationary},
                                 {"scalesim_os", Dataflow::kOutputStationary},
                                 {"ws_double_buffered", Dataflow::kWeightStationary},
                                 {"systolic", Dataflow::kWeightStationary}};

std::string text_of(const Machine& machine, model::ArraySize size) {
  return std::string(machine.model) + " " + std::to_string(size.rows) + "x" +
         std::to_string(size.columns);
}

std::uint64_t accumulation_length(const Machine& machine, model::ArraySize size,
                                  const model::GemmShape& shape) {
  const model::Hardware hardware({{"model", machine.model},
                                  {"clock", "1GHz"},
                                  {"rows", std::to_string(size.rows)},
                                  {"cols", std::to_string(size.columns)}});
  model::EventQueue events;
  return hardware.create_model(events, nullptr)->accumulation_length(shape);
}

template <typename Arithmetic>
struct Numbers {
  using Input = typename Arithmetic::Input;
  using Sum = typename Arithmetic::Sum;
  std::uint64_t m, n, k;
  std::vector<Input> a, b;
  compute::Dtype dtype;                         // in which the kernel gets them
  std::vector<compute::Bits16> half_a, half_b;  // where that has 16 bits
};

// int32 wraps; a float sum is one rounded addition.
float add(float x, float y) { return x + y; }
std::int32_t add(std::int32_t x, std::int32_t y) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(x) + static_cast<std::uint32_t>(y));
}

// How far a tile reaches along M, N and K: what does not lie across the array streams.
model::GemmShape tile_of(Dataflow dataflow, model::ArraySize size) {
  constexpr std::uint64_t stream = model::PeArray<Float32Arithmetic>::kMaxStream;
  model::GemmShape tile;
  tile.m = dataflow == Dataflow::kWeightStationary  ? stream
           : dataflow == Dataflow::kInputStationary ? size.columns
                                                    : size.rows;
  tile.n = dataflow == Dataflow::kInputStationary ? stream : size.columns;
  tile.k = dataflow == Dataflow::kOutputStationary ? stream : size.rows;
  return tile;
}

template <typename Arithmetic>
std::vector<typename Arithmetic::Sum> by_the_array(Dataflow dataflow, model::ArraySize size,
                                                   const Numbers<Arithmetic>& numbers) {
  const model::PeArray<Arithmetic> array(dataflow, size);
  const model::GemmShape most = tile_of(dataflow, size);
  std::vector<typename Arithmetic::Sum> c(numbers.m * numbers.n, 0);
  for (std::uint64_t k = 0; k < numbers.k; k += most.k) {
    for (std::uint64_t row = 0; row < numbers.m; row += most.m) {
      for (std::uint64_t column = 0; column < numbers.n; column += most.n) {
        model::ArrayTile<Arithmetic> tile;
        tile.m = std::min(most.m, numbers.m - row);
        tile.n = std::min(most.n, numbers.n - column);
        tile.k = std::min(most.k, numbers.k - k);
        for (std::uint64_t i = 0; i < tile.m; ++i) {
          const auto first = numbers.a.begin() + static_cast<long>((row + i) * numbers.k + k);
          tile.a.insert(tile.a.end(), first, first + static_cast<long>(tile.k));
        }
        for (std::uint64_t i = 0; i < tile.k; ++i) {
          const auto first = numbers.b.begin() + static_cast<long>((k + i) * numbers.n + column);
          tile.b.insert(tile.b.end(), first, first + static_cast<long>(tile.n));
        }
        const auto sums = array.run({tile}).tiles[0].c;
        for (std::uint64_t i = 0; i < tile.m * tile.n; ++i) {
          auto& target = c[(row + i / tile.n) * numbers.n + column + i % tile.n];
          target = add(target, sums[i]);
        }
      }
    }
  }
  return c;
}

template <typename Arithmetic>
std::vector<typename Arithmetic::Sum> by_the_kernel(std::uint64_t length,
                                                    const Numbers<Arithmetic>& numbers) {
  std::vector<typename Arithmetic::Sum> c(numbers.m * numbers.n, 99);
  compute::Gemm gemm;
  gemm.m = static_cast<std::uint32_t>(numbers.m);
  gemm.n = gemm.ldb = gemm.ldc = static_cast<std::uint32_t>(numbers.n);
  gemm.k = gemm.lda = static_cast<std::uint32_t>(numbers.k);
  const bool halves = !numbers.half_a.empty();
  gemm.a = halves ? static_cast<const void*>(numbers.half_a.data()) : numbers.a.data();
  gemm.b = halves ? static_cast<const void*>(numbers.half_b.data()) : numbers.b.data();
  gemm.c = c.data();
  gemm.accumulation_length = length;
  gemm.input = numbers.dtype;
  if (gemm.input == compute::Dtype::kInt8) gemm.output = compute::Dtype::kInt32;
  compute::Engine(2).run(gemm);
  return c;
}

// Which NaN the sum of two is, is up to the CPU; C has one alone.
bool same(float got, float expected) {
  std::uint32_t bits, wanted;
  std::memcpy(&bits, &got, sizeof bits);
  std::memcpy(&wanted, &expected, sizeof wanted);
  return bits == (std::isnan(expected) ? 0x7fc00000u : wanted);
}
bool same(std::int32_t got, std::int32_t expected) { return got == expected; }

template <typename Arithmetic>
void compare(const Machine& machine, model::ArraySize size, const Numbers<Arithmetic>& numbers) {
  model::GemmShape shape;
  shape.m = numbers.m;
  shape.n = numbers.n;
  shape.k = numbers.k;
  const auto expected = by_the_array(machine.dataflow, size, numbers);
  const auto got = by_the_kernel(accumulation_length(machine, size, shape), numbers);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(same(got[i], expected[i]))
        << text_of(machine, size) << " " << numbers.m << "x" << numbers.k << "x" << numbers.n
        << " C[" << i << "]: " << got[i] << ", not " << expected[i];
  }
}

template <typename Arithmetic, typename Value>
Numbers<Arithmetic> random_numbers(std::uint64_t m, std::uint64_t n, std::uint64_t k,
                                   Value&& value) {
  Numbers<Arithmetic> numbers{m, n, k, {}, {}, compute::Dtype::kFloat32, {}, {}};
  for (std::uint64_t i = 0; i < m * k; ++i) numbers.a.push_back(value());
  for (std::uint64_t i = 0; i < k * n; ++i) numbers.b.push_back(value());
  return numbers;
}

// Any exponent that does not overflow at once, and now and then a special value.
float some_float(std::mt19937& random, std::uint32_t special_in) {
  std::uint32_t bits = static_cast<std::uint32_t>(random());
  bits = (bits & 0x807fffffu) | (117u + bits / 8388608u % 16u) << 23;
  if (special_in != 0 && random() % special_in == 0) {
    const std::uint32_t specials[] = {0x80000000u, 0x7f800000u, 0xff800000u,
                                      0x7f800001u, 1u,          0x807fffffu};
    bits = specials[random() % std::size(specials)];
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

class Array : public testing::TestWithParam<Machine> {};

TEST_P(Array, Float32) {
  std::mt19937 random(3);
  const model::ArraySize sizes[] = {{1, 1}, {2, 3}, {4, 4}, {7, 5}, {16, 16}, {64, 64}};
  for (const model::ArraySize size : sizes) {
    for (const std::uint32_t special_in : {0u, 30u}) {
      // os streams K through the array, which takes 256 steps of it.
      const std::uint64_t k = 1 + random() % (5 * size.rows);
      compare(GetParam(), size,
              random_numbers<Float32Arithmetic>(1 + random() % 40, 1 + random() % 40,
                                                std::min<std::uint64_t>(k, 256),
                                                [&] { return some_float(random, special_in); }));
    }
  }
}

// Bits at random: of float16 one in 32 is an infinity or a NaN, and as many are subnormal.
TEST_P(Array, Float16AndBfloat16) {
  std::mt19937 random(5);
  const auto widened = [](float (*widen)(compute::Bits16), const auto& halves) {
    std::vector<float> values;
    for (const compute::Bits16 half : halves) values.push_back(widen(half));
    return values;
  };
  for (const auto dtype : {compute::Dtype::kFloat16, compute::Dtype::kBfloat16}) {
    for (const model::ArraySize size : {model::ArraySize{3, 4}, model::ArraySize{16, 8}}) {
      for (const std::uint64_t k : {1u, 5u, 40u}) {
        Numbers<Float32Arithmetic> numbers{20, 30, k, {}, {}, dtype, {}, {}};
        for (std::uint64_t i = 0; i < numbers.m * k; ++i) {
          numbers.half_a.push_back(static_cast<compute::Bits16>(random()));
        }
        for (std::uint64_t i = 0; i < k * numbers.n; ++i) {
          numbers.half_b.push_back(static_cast<compute::Bits16>(random()));
        }
        const bool is_half = dtype == compute::Dtype::kFloat16;
        const auto widen = is_half ? compute::widen_float16 : compute::widen_bfloat16;
        numbers.a = widened(widen, numbers.half_a);
        numbers.b = widened(widen, numbers.half_b);
        compare(GetParam(), size, numbers);
      }
    }
  }
}

TEST_P(Array, Int8) {
  std::mt19937 random(4);
  for (const model::ArraySize size : {model::ArraySize{3, 4}, model::ArraySize{16, 8}}) {
    auto numbers = random_numbers<Int8Arithmetic>(
        20, 30, 70, [&] { return static_cast<std::int8_t>(random()); });
    numbers.dtype = compute::Dtype::kInt8;
    compare(GetParam(), size, numbers);
  }
}

INSTANTIATE_TEST_SUITE_P(BitAccurate, Array, testing::ValuesIn(kMachines),
                         [](const auto& info) { return std::string(info.param.model); });

TEST(AccumulationLength, IsRowsWhereOperandsStayAndAllOfKWhereSumsStay) {
  model::GemmShape shape;
  shape.m = shape.n = 5;
  for (const std::uint64_t k : {1, 100, 1000}) {
    shape.k = k;
    for (const Machine& machine : kMachines) {
      const bool sums_stay = machine.dataflow == Dataflow::kOutputStationary;
      EXPECT_EQ(accumulation_length(machine, {12, 7}, shape), sums_stay ? k : 12) << machine.model;
    }
  }
}

}  // namespace
}  // namespace shmgemm
