// The SystemVerilog arrays beside model::PeArray: fed with the same ports, they must hold the same
// value in every register in every cycle, and give the same results.
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "Systolic_os_1x1.h"
#include "Systolic_os_3x5.h"
#include "Systolic_os_5x2.h"
#include "Systolic_os_8x8.h"
#include "Systolic_ws_1x1.h"
#include "Systolic_ws_3x5.h"
#include "Systolic_ws_5x2.h"
#include "Systolic_ws_8x8.h"
#include "model/pe_array.h"

namespace shmgemm::model {
namespace {

using Array = PeArray<Int8Arithmetic>;
using Tile = Array::Tile;
using Weights = Array::Observer::Weights;
using Outputs = Array::Observer::Outputs;

std::int8_t signed_8(std::uint8_t bits) { return static_cast<std::int8_t>(bits); }
std::int32_t signed_32(std::uint32_t bits) { return static_cast<std::int32_t>(bits); }
std::uint8_t bits_of(std::int8_t value) { return static_cast<std::uint8_t>(value); }

// A clocked module with its registers at 0.
template <typename Module>
class Clocked {
 public:
  Clocked() {
    module.rst = 1;
    edge();
    module.rst = 0;
  }
  ~Clocked() { module.final(); }

  void edge() {
    module.clk = 0;
    module.eval();
    module.clk = 1;
    module.eval();
    module.clk = 0;
    module.eval();
  }

  Module module;
};

// --- ws and is

template <typename Module>
void drive(Module& rtl, ArraySize size, const Weights::Ports& ports) {
  for (std::uint64_t i = 0; i < size.rows; ++i) {
    rtl.a_value_in[i] = bits_of(ports.rows[i].value);
    rtl.a_valid_in[i] = ports.rows[i].valid;
    rtl.a_first_in[i] = ports.rows[i].first;
  }
  for (std::uint64_t j = 0; j < size.columns; ++j) {
    rtl.load_weight[j] = bits_of(ports.columns[j].weight);
    rtl.load_enable[j] = ports.columns[j].enable;
    rtl.load_first[j] = ports.columns[j].first;
  }
  rtl.eval();
}

template <typename Module>
void expect_equal(const Module& rtl, const Weights& grid, ArraySize size, const Weights::Ports&) {
  for (std::uint64_t i = 0; i < size.rows; ++i) {
    for (std::uint64_t j = 0; j < size.columns; ++j) {
      SCOPED_TRACE("PE " + std::to_string(i) + "," + std::to_string(j));
      const auto& pe = grid.pe(i, j);
      ASSERT_EQ(signed_8(rtl.a_value[i][j]), pe.a.value);
      ASSERT_EQ(rtl.a_valid[i][j], pe.a.valid);
      ASSERT_EQ(rtl.a_first[i][j], pe.a.first);
      ASSERT_EQ(signed_32(rtl.sum[i][j]), pe.sum);
      ASSERT_EQ(rtl.sum_valid[i][j], pe.sum_valid);
      ASSERT_EQ(signed_8(rtl.shadow[i][j]), pe.shadow);
      ASSERT_EQ(signed_8(rtl.weight[i][j]), pe.weight);
      ASSERT_EQ(rtl.filled[i][j], pe.filled);
    }
  }
  for (std::uint64_t j = 0; j < size.columns; ++j) {
    ASSERT_EQ(signed_32(rtl.sum_out[j]), grid.output(j).sum);
    ASSERT_EQ(rtl.sum_valid_out[j], grid.output(j).valid);
  }
}

// --- os

template <typename Module>
void drive(Module& rtl, ArraySize size, const Outputs::Ports& ports) {
  for (std::uint64_t i = 0; i < size.rows; ++i) {
    rtl.a_value_in[i] = bits_of(ports.rows[i].value);
    rtl.a_valid_in[i] = ports.rows[i].valid;
    rtl.a_first_in[i] = ports.rows[i].first;
    rtl.a_last_in[i] = ports.rows[i].last;
  }
  for (std::uint64_t j = 0; j < size.columns; ++j) {
    rtl.b_value_in[j] = bits_of(ports.columns[j].value);
    rtl.b_valid_in[j] = ports.columns[j].valid;
    rtl.release_column[j] = ports.release[j];
  }
  rtl.eval();
}

template <typename Module>
void expect_equal(const Module& rtl, const Outputs& grid, ArraySize size,
                  const Outputs::Ports& ports) {
  for (std::uint64_t i = 0; i < size.rows; ++i) {
    for (std::uint64_t j = 0; j < size.columns; ++j) {
      SCOPED_TRACE("PE " + std::to_string(i) + "," + std::to_string(j));
      const auto& pe = grid.pe(i, j);
      ASSERT_EQ(signed_8(rtl.a_value[i][j]), pe.a.value);
      ASSERT_EQ(rtl.a_valid[i][j], pe.a.valid);
      ASSERT_EQ(rtl.a_first[i][j], pe.a.first);
      ASSERT_EQ(rtl.a_last[i][j], pe.a.last);
      ASSERT_EQ(signed_8(rtl.b_value[i][j]), pe.b.value);
      ASSERT_EQ(rtl.b_valid[i][j], pe.b.valid);
      ASSERT_EQ(signed_32(rtl.sum[i][j]), pe.sum);
      ASSERT_EQ(signed_32(rtl.result[i][j]), pe.result.value);
      ASSERT_EQ(rtl.present[i][j], pe.result.present);
      ASSERT_EQ(rtl.moving[i][j], pe.result.moving);
    }
  }
  for (std::uint64_t j = 0; j < size.columns; ++j) {
    ASSERT_EQ(signed_32(rtl.result_out[j]), grid.output(j, ports).sum);
    ASSERT_EQ(rtl.result_valid_out[j], grid.output(j, ports).valid);
  }
}

// --- both

Tile random_tile(Dataflow dataflow, ArraySize size, std::mt19937& random) {
  const auto side = [&](std::uint64_t max) {  // the edges often
    return random() % 3 == 0 ? max : 1 + random() % max;
  };
  const std::uint64_t rows = side(size.rows), columns = side(size.columns), stream = side(20);
  Tile tile;
  switch (dataflow) {
    case Dataflow::kWeightStationary:
      tile.k = rows, tile.n = columns, tile.m = stream;
      break;
    case Dataflow::kInputStationary:
      tile.k = rows, tile.m = columns, tile.n = stream;
      break;
    case Dataflow::kOutputStationary:
      tile.m = rows, tile.n = columns, tile.k = stream;
      break;
  }
  const bool extremes = random() % 4 == 0;
  const auto value = [&] { return static_cast<std::int8_t>(extremes ? -128 : random()); };
  for (std::uint64_t i = 0; i < tile.m * tile.k; ++i) tile.a.push_back(value());
  for (std::uint64_t i = 0; i < tile.k * tile.n; ++i) tile.b.push_back(value());
  return tile;
}

void expect_product(const Tile& tile, const std::vector<std::int32_t>& c) {
  ASSERT_EQ(c.size(), tile.m * tile.n);
  for (std::uint64_t m = 0; m < tile.m; ++m) {
    for (std::uint64_t n = 0; n < tile.n; ++n) {
      std::int32_t sum = 0;
      for (std::uint64_t k = 0; k < tile.k; ++k) {
        sum += tile.a[m * tile.k + k] * tile.b[k * tile.n + n];
      }
      ASSERT_EQ(c[m * tile.n + n], sum);
    }
  }
}

// Runs a burst on both. The last result stands in the bottom row after the last edge of a run, so
// the module is seen in run.cycles + 1 cycles.
template <typename Module, typename Grid>
void compare(Dataflow dataflow, ArraySize size, const std::vector<Tile>& tiles) {
  Clocked<Module> clocked;
  Cycle cycles = 0;
  const auto step = [&](Cycle cycle, const Grid& grid, const typename Grid::Ports& ports) {
    if (testing::Test::HasFatalFailure()) return;
    SCOPED_TRACE("cycle " + std::to_string(cycle));
    ASSERT_EQ(cycle, cycles++);
    drive(clocked.module, size, ports);
    expect_equal(clocked.module, grid, size, ports);
    clocked.edge();
  };
  Array::Observer observer;
  if constexpr (std::is_same_v<Grid, Weights>) {
    observer.weights = step;
  } else {
    observer.outputs = step;
  }
  const auto run = Array(dataflow, size).run(tiles, observer);
  ASSERT_EQ(cycles, run.cycles + 1);
  for (std::size_t i = 0; i < tiles.size(); ++i) expect_product(tiles[i], run.tiles[i].c);
}

template <typename Module, typename Grid>
void bursts(Dataflow dataflow, ArraySize size) {
  std::mt19937 random(static_cast<std::uint32_t>(100 * size.rows + size.columns));
  for (int i = 0; i < 60; ++i) {
    std::vector<Tile> tiles(1 + random() % 6);
    for (Tile& tile : tiles) tile = random_tile(dataflow, size, random);
    SCOPED_TRACE("burst " + std::to_string(i));
    compare<Module, Grid>(dataflow, size, tiles);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(Rtl, WeightStationary) {
  bursts<Systolic_ws_1x1, Weights>(Dataflow::kWeightStationary, {1, 1});
  bursts<Systolic_ws_3x5, Weights>(Dataflow::kWeightStationary, {3, 5});
  bursts<Systolic_ws_5x2, Weights>(Dataflow::kWeightStationary, {5, 2});
  bursts<Systolic_ws_8x8, Weights>(Dataflow::kWeightStationary, {8, 8});
}

TEST(Rtl, InputStationary) {
  bursts<Systolic_ws_1x1, Weights>(Dataflow::kInputStationary, {1, 1});
  bursts<Systolic_ws_3x5, Weights>(Dataflow::kInputStationary, {3, 5});
  bursts<Systolic_ws_5x2, Weights>(Dataflow::kInputStationary, {5, 2});
  bursts<Systolic_ws_8x8, Weights>(Dataflow::kInputStationary, {8, 8});
}

TEST(Rtl, OutputStationary) {
  bursts<Systolic_os_1x1, Outputs>(Dataflow::kOutputStationary, {1, 1});
  bursts<Systolic_os_3x5, Outputs>(Dataflow::kOutputStationary, {3, 5});
  bursts<Systolic_os_5x2, Outputs>(Dataflow::kOutputStationary, {5, 2});
  bursts<Systolic_os_8x8, Outputs>(Dataflow::kOutputStationary, {8, 8});
}

// The comparison sees a difference: a module whose weights are those of another tile.
TEST(Rtl, ADifferentTileIsADifferentResult) {
  const ArraySize size{3, 5};
  const Tile tile{2, 5, 3, std::vector<std::int8_t>(6, 1), std::vector<std::int8_t>(15, 1)};
  Clocked<Systolic_ws_3x5> clocked;
  bool differs = false;
  Array::Observer observer;
  observer.weights = [&](Cycle, const Weights& grid, Weights::Ports ports) {
    for (auto& column : ports.columns) column.weight = 2;
    drive(clocked.module, size, ports);
    for (std::uint64_t j = 0; j < size.columns; ++j) {
      differs |= signed_32(clocked.module.sum_out[j]) != grid.output(j).sum;
    }
    clocked.edge();
  };
  Array(Dataflow::kWeightStationary, size).run({tile}, observer);
  EXPECT_TRUE(differs);
}

}  // namespace
}  // namespace shmgemm::model
