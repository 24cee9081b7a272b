// The stepped array against the closed forms, at every edge, and against a loop that adds in the
// documented order, bit by bit; and that one cycle earlier would be too early.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "contains.h"
#include "model/pe_array.h"

namespace shmgemm::model {
namespace {

constexpr Dataflow kDataflows[] = {Dataflow::kWeightStationary, Dataflow::kOutputStationary,
                                   Dataflow::kInputStationary};
const char* const kNames[] = {"ws", "os", "is"};

enum class Kind { kFloat32, kFloat16, kBfloat16 };

// A value with all mantissa bits of its type in use, now and then huge, tiny or subnormal.
float random_float(Kind kind, std::mt19937& random) {
  const int bits = kind == Kind::kFloat32 ? 24 : kind == Kind::kFloat16 ? 11 : 8;
  const double mantissa = static_cast<double>(random() >> (32 - bits));
  const int low = kind == Kind::kFloat16 ? -24 : -133;
  const int high = kind == Kind::kFloat16 ? 4 : 100;
  int exponent = -bits + static_cast<int>(random() % 4);
  if (random() % 16 == 0) exponent = low + static_cast<int>(random() % (high - low + 1));
  const float value = static_cast<float>(std::ldexp(mantissa, exponent));
  return random() % 2 == 0 ? value : -value;
}

void fill(std::vector<float>& values, Kind kind, std::mt19937& random) {
  for (float& value : values) value = random_float(kind, random);
}
void fill(std::vector<std::int8_t>& values, Kind, std::mt19937& random) {
  for (std::int8_t& value : values) value = static_cast<std::int8_t>(random());
}

template <typename Arithmetic>
ArrayTile<Arithmetic> tile_of(Dataflow dataflow, TileShape shape, Kind kind, std::mt19937& random) {
  ArrayTile<Arithmetic> tile;
  switch (dataflow) {
    case Dataflow::kWeightStationary:
      tile.k = shape.rows, tile.n = shape.columns, tile.m = shape.stream;
      break;
    case Dataflow::kOutputStationary:
      tile.m = shape.rows, tile.n = shape.columns, tile.k = shape.stream;
      break;
    case Dataflow::kInputStationary:
      tile.k = shape.rows, tile.m = shape.columns, tile.n = shape.stream;
      break;
  }
  tile.a.resize(tile.m * tile.k);
  tile.b.resize(tile.k * tile.n);
  fill(tile.a, kind, random);
  fill(tile.b, kind, random);
  return tile;
}

// From +0, over k = 0, 1, ...; product and sum rounded one by one.
float expected(const ArrayTile<Float32Arithmetic>& tile, std::uint64_t m, std::uint64_t n) {
  volatile float sum = 0;
  for (std::uint64_t k = 0; k < tile.k; ++k) {
    const volatile float product = tile.a[m * tile.k + k] * tile.b[k * tile.n + n];
    sum = sum + product;
  }
  return sum;
}
std::int32_t expected(const ArrayTile<Int8Arithmetic>& tile, std::uint64_t m, std::uint64_t n) {
  std::int64_t sum = 0;  // 256 terms of at most 2^14
  for (std::uint64_t k = 0; k < tile.k; ++k) {
    sum += std::int64_t{tile.a[m * tile.k + k]} * tile.b[k * tile.n + n];
  }
  return static_cast<std::int32_t>(sum);
}

template <typename Value>
std::uint32_t bits(Value value) {
  std::uint32_t result;
  static_assert(sizeof(value) == sizeof(result));
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

std::string name(Dataflow dataflow, ArraySize size, const std::vector<TileShape>& tiles) {
  std::string text = std::string(kNames[static_cast<int>(dataflow)]) + " " +
                     std::to_string(size.rows) + "x" + std::to_string(size.columns);
  for (const TileShape& tile : tiles) {
    text += " (" + std::to_string(tile.rows) + "," + std::to_string(tile.columns) + "," +
            std::to_string(tile.stream) + ")";
  }
  return text;
}

template <typename Arithmetic>
void expect_values(const ArrayTile<Arithmetic>& tile, const TileRun<Arithmetic>& run) {
  ASSERT_EQ(run.c.size(), tile.m * tile.n);
  for (std::uint64_t m = 0; m < tile.m; ++m) {
    for (std::uint64_t n = 0; n < tile.n; ++n) {
      const auto want = expected(tile, m, n);
      if (want != want) {
        ASSERT_EQ(bits(run.c[m * tile.n + n]), 0x7fc00000u);
      } else {
        ASSERT_EQ(bits(run.c[m * tile.n + n]), bits(want)) << "C[" << m << "][" << n << "]";
      }
    }
  }
}

// Times of a burst as the closed forms have them, against those seen; and the values.
template <typename Arithmetic>
void compare(Dataflow dataflow, ArraySize size, const std::vector<TileShape>& shapes, Kind kind,
             std::mt19937& random) {
  SCOPED_TRACE(name(dataflow, size, shapes));
  std::vector<ArrayTile<Arithmetic>> tiles;
  for (const TileShape& shape : shapes) {
    tiles.push_back(tile_of<Arithmetic>(dataflow, shape, kind, random));
  }
  const auto run = PeArray<Arithmetic>(dataflow, size).run(tiles);
  EXPECT_EQ(run.cycles, burst_cycles(dataflow, size, shapes));
  Cycle start = 0;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const TileTiming timing = tile_timing(dataflow, size, shapes[i]);
    start += i == 0 ? timing.load : issue_interval(dataflow, shapes[i - 1], shapes[i]);
    ASSERT_EQ(run.tiles[i].first_input, start);
    ASSERT_EQ(run.tiles[i].first_result, start + timing.first_result - 1);
    ASSERT_EQ(run.tiles[i].last_result, start + timing.last_result - 1);
    if (timing.load > 0) {
      ASSERT_EQ(run.tiles[i].last_load - run.tiles[i].first_load + 1, timing.load);
      ASSERT_LT(run.tiles[i].last_load, run.tiles[i].first_input);
    }
    expect_values(tiles[i], run.tiles[i]);
  }
}

TileShape random_shape(ArraySize size, std::uint64_t max_stream, std::mt19937& random) {
  const auto upto = [&](std::uint64_t max) {  // the edges often
    const std::uint32_t draw = random() % 4;
    return draw == 0 ? max : draw == 1 ? 1 : 1 + random() % max;
  };
  return {upto(size.rows), upto(size.columns), upto(max_stream)};
}

TEST(PeArray, EveryTileOfEverySmallArray) {
  std::mt19937 random(1);
  for (const Dataflow dataflow : kDataflows) {
    for (std::uint64_t size = 0; size < 25; ++size) {
      const ArraySize array{1 + size / 5, 1 + size % 5};
      for (std::uint64_t r = 1; r <= array.rows; ++r) {
        for (std::uint64_t c = 1; c <= array.columns; ++c) {
          for (std::uint64_t s = 1; s <= 7; ++s) {
            compare<Float32Arithmetic>(dataflow, array, {{r, c, s}}, Kind::kFloat32, random);
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

TEST(PeArray, EveryPairOfTilesOnASmallArray) {
  std::mt19937 random(2);
  const ArraySize array{3, 2};
  const std::uint64_t shapes = 3 * 2 * 5;
  const auto shape = [](std::uint64_t i) { return TileShape{1 + i % 3, 1 + i / 3 % 2, 1 + i / 6}; };
  for (const Dataflow dataflow : kDataflows) {
    for (std::uint64_t i = 0; i < shapes * shapes; ++i) {
      compare<Int8Arithmetic>(dataflow, array, {shape(i % shapes), shape(i / shapes)},
                              Kind::kFloat32, random);
      if (HasFailure()) return;
    }
  }
}

template <typename Arithmetic>
void random_bursts(Kind kind, std::uint32_t seed) {
  std::mt19937 random(seed);
  for (int i = 0; i < 120; ++i) {
    const ArraySize array{1 + random() % 12, 1 + random() % 12};
    std::vector<TileShape> shapes(1 + random() % 6);
    for (TileShape& shape : shapes) shape = random_shape(array, 24, random);
    compare<Arithmetic>(kDataflows[i % 3], array, shapes, kind, random);
    if (testing::Test::HasFailure()) return;
  }
  for (int i = 0; i < 6; ++i) {
    const ArraySize array{1 + random() % 64, 1 + random() % 64};
    const std::vector<TileShape> shapes{random_shape(array, 256, random),
                                        random_shape(array, 256, random)};
    compare<Arithmetic>(kDataflows[i % 3], array, shapes, kind, random);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(PeArray, BurstsOfFloat32) { random_bursts<Float32Arithmetic>(Kind::kFloat32, 3); }
TEST(PeArray, BurstsOfFloat16) { random_bursts<Float32Arithmetic>(Kind::kFloat16, 4); }
TEST(PeArray, BurstsOfBfloat16) { random_bursts<Float32Arithmetic>(Kind::kBfloat16, 5); }
TEST(PeArray, BurstsOfInt8) { random_bursts<Int8Arithmetic>(Kind::kFloat32, 6); }

TEST(PeArray, TheLargestTile) {
  std::mt19937 random(7);
  for (const Dataflow dataflow : kDataflows) {
    compare<Float32Arithmetic>(dataflow, {64, 64}, {{64, 64, 256}, {64, 64, 256}}, Kind::kFloat32,
                               random);
  }
}

TEST(PeArray, UnusedRowsDoNotTurnInfinityIntoNan) {
  ArrayTile<Float32Arithmetic> big{1, 1, 2, {1, 1}, {std::numeric_limits<float>::infinity(), 1}};
  ArrayTile<Float32Arithmetic> small{1, 1, 1, {0.5}, {3}};
  for (const Dataflow dataflow : kDataflows) {
    const auto run = PeArray<Float32Arithmetic>(dataflow, {4, 4}).run({big, small});
    EXPECT_EQ(run.tiles[0].c[0], std::numeric_limits<float>::infinity());
    EXPECT_EQ(run.tiles[1].c[0], 1.5f);
  }
}

TEST(PeArray, NansLeaveAsThePositiveQuietOne) {
  const float infinity = std::numeric_limits<float>::infinity();
  float payload;
  const std::uint32_t pattern = 0xffc12345u;
  std::memcpy(&payload, &pattern, sizeof(payload));
  const ArrayTile<Float32Arithmetic> tile{2, 1, 2, {infinity, -infinity, payload, 1}, {1, 1}};
  for (const Dataflow dataflow : kDataflows) {
    const auto run = PeArray<Float32Arithmetic>(dataflow, {2, 2}).run({tile});
    EXPECT_EQ(bits(run.tiles[0].c[0]), 0x7fc00000u);
    EXPECT_EQ(bits(run.tiles[0].c[1]), 0x7fc00000u);
  }
}

TEST(PeArray, SumsStartFromPositiveZero) {
  const ArrayTile<Float32Arithmetic> tile{1, 1, 1, {-0.0f}, {1}};
  for (const Dataflow dataflow : kDataflows) {
    const auto run = PeArray<Float32Arithmetic>(dataflow, {2, 2}).run({tile});
    EXPECT_EQ(bits(run.tiles[0].c[0]), 0u);
  }
}

// --- the intervals are the least the registers allow: ports driven by hand, one tile of ones and
// one of twos, the second begun after `interval` cycles

struct Pair {
  std::uint64_t rows, first_stream, second_stream, columns;
};

// Both tiles' sums at the bottom of the last column, from the weight grid.
std::vector<std::int32_t> sums_of_both(const Pair& pair, std::uint64_t interval) {
  using Grid = WeightGrid<Int8Arithmetic>;
  Grid grid(pair.rows, pair.columns);
  std::vector<std::int32_t> sums;
  const std::uint64_t load_0 = 0, start_0 = pair.rows, load_1 = start_0 + interval - pair.rows,
                      start_1 = start_0 + interval;
  const auto inside = [](std::uint64_t x, std::uint64_t begin, std::uint64_t count) {
    return x >= begin && x < begin + count;
  };
  for (std::uint64_t x = 0; x < start_1 + pair.second_stream + pair.rows + pair.columns; ++x) {
    Grid::Ports ports{std::vector<Grid::Moving>(pair.rows), std::vector<Grid::Load>(pair.columns)};
    for (std::uint64_t i = 0; i < pair.rows && i <= x; ++i) {
      if (inside(x - i, start_0, pair.first_stream)) ports.rows[i] = {1, true, x - i == start_0};
      if (inside(x - i, start_1, pair.second_stream)) ports.rows[i] = {1, true, x - i == start_1};
    }
    for (std::uint64_t j = 0; j < pair.columns && j <= x; ++j) {
      if (inside(x - j, load_0, pair.rows)) ports.columns[j] = {1, true, x - j == load_0};
      if (inside(x - j, load_1, pair.rows)) ports.columns[j] = {2, true, x - j == load_1};
    }
    const auto output = grid.output(pair.columns - 1);
    if (output.valid) sums.push_back(output.sum);
    grid.clock(ports);
  }
  return sums;
}

TEST(PeGrid, WeightsCannotFollowFasterThanTheyLoad) {
  const Pair pair{5, 2, 3, 4};
  const std::vector<std::int32_t> right{5, 5, 10, 10, 10};
  EXPECT_EQ(sums_of_both(pair, 5), right);
  EXPECT_EQ(sums_of_both(pair, 9), right);
  EXPECT_NE(sums_of_both(pair, 4), right);
}

// Whether two tiles pass the output grid with the last steps of their streams `apart` cycles apart.
bool results_pass(std::uint64_t rows, std::uint64_t columns, std::uint64_t apart) {
  using Grid = OutputGrid<Int8Arithmetic>;
  Grid grid(rows, columns);
  std::uint64_t results = 0;
  try {
    for (std::uint64_t x = 0; x < apart + 4 * (rows + columns); ++x) {
      Grid::Ports ports{std::vector<Grid::Moving>(rows), std::vector<Grid::Falling>(columns),
                        std::vector<bool>(columns)};
      for (std::uint64_t i = 0; i < rows && i <= x; ++i) {
        if (x - i == 0 || x - i == apart) ports.rows[i] = {1, true, true, true};
      }
      for (std::uint64_t j = 0; j < columns && j <= x; ++j) {
        ports.columns[j] = {1, x - j == 0 || x - j == apart};
        ports.release[j] = x - j == rows || x - j == apart + rows;
      }
      for (std::uint64_t j = 0; j < columns; ++j) results += grid.output(j, ports).valid;
      grid.clock(ports);
    }
  } catch (const std::logic_error& error) {
    expect_parts(error.what(), {"two results meet"});
    return false;
  }
  return results == 2 * rows * columns;
}

TEST(PeGrid, ResultsCannotFollowFasterThanTheyDrain) {
  for (std::uint64_t rows = 2; rows < 9; ++rows) {
    EXPECT_TRUE(results_pass(rows, 3, rows));
    EXPECT_FALSE(results_pass(rows, 3, rows - 1));
  }
}

TEST(PeArray, BadInputIsNamed) {
  using Array = PeArray<Int8Arithmetic>;
  EXPECT_THROW(Array(Dataflow::kWeightStationary, {0, 4}), std::invalid_argument);
  EXPECT_THROW(Array(Dataflow::kWeightStationary, {4, 65}), std::invalid_argument);
  const Array array(Dataflow::kWeightStationary, {4, 4});
  const auto message = [&](const ArrayTile<Int8Arithmetic>& tile) {
    try {
      array.run({tile});
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  expect_parts(message({1, 5, 4, std::vector<std::int8_t>(4), std::vector<std::int8_t>(20)}),
               {"5 columns", "4x4"});
  expect_parts(message({257, 1, 1, std::vector<std::int8_t>(257), {1}}), {"stream of 257", "256"});
  expect_parts(message({2, 2, 2, {1, 2, 3}, {1, 2, 3, 4}}), {"3 elements of A", "4 of B"});
}

}  // namespace
}  // namespace shmgemm::model
