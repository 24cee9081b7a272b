// The model `systolic` in front of ideal memory against the array itself: the cycles of one step
// are those of the stepped PeArray working off the same array tiles, which this file cuts anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "model/event_queue.h"
#include "model/hardware.h"
#include "model/pe_array.h"

namespace shmgemm::model {
namespace {

constexpr Dataflow kDataflows[] = {Dataflow::kWeightStationary, Dataflow::kOutputStationary,
                                   Dataflow::kInputStationary};
const char* const kNames[] = {"ws", "os", "is"};

struct Product {
  std::uint64_t m, n, k;
};

GemmTiming time_of(Dataflow dataflow, ArraySize array, const Product& product) {
  const Hardware hardware({{"model", "systolic"},
                           {"dataflow", kNames[static_cast<int>(dataflow)]},
                           {"rows", std::to_string(array.rows)},
                           {"cols", std::to_string(array.columns)},
                           {"memory", "ideal"}});
  GemmShape shape;
  shape.m = product.m, shape.n = product.n, shape.k = product.k;
  EventQueue queue;
  const auto model = hardware.create_model(queue, nullptr);
  GemmTiming result;
  model->start(shape, [&](const GemmTiming& timing) { result = timing; });
  while (!queue.empty()) queue.run_next();
  return result;
}

// Column groups one after the other, in each the row groups.
std::vector<TileShape> cut(Dataflow dataflow, ArraySize array, const Product& product) {
  const TileShape whole = tile_shape(dataflow, product.m, product.n, product.k);
  std::vector<TileShape> tiles;
  for (std::uint64_t column = 0; column < whole.columns; column += array.columns) {
    for (std::uint64_t row = 0; row < whole.rows; row += array.rows) {
      tiles.push_back({std::min(array.rows, whole.rows - row),
                       std::min(array.columns, whole.columns - column), whole.stream});
    }
  }
  return tiles;
}

// docs/systolic.md: K is not cut where no shorter step takes 8 (R + C) cycles.
bool is_one_step(ArraySize array, const std::vector<TileShape>& tiles) {
  std::uint64_t occupancy = 0;
  for (const TileShape& tile : tiles) occupancy += std::max(tile.stream, tile.rows);
  return occupancy < 8 * (array.rows + array.columns);
}

Cycle stepped(Dataflow dataflow, ArraySize array, const std::vector<TileShape>& shapes) {
  std::vector<ArrayTile<Int8Arithmetic>> tiles;
  for (const TileShape& shape : shapes) {
    ArrayTile<Int8Arithmetic> tile;
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
    tile.a.assign(tile.m * tile.k, 1);
    tile.b.assign(tile.k * tile.n, 1);
    tiles.push_back(tile);
  }
  return PeArray<Int8Arithmetic>(dataflow, array).run(tiles).cycles;
}

void compare(Dataflow dataflow, ArraySize array, const Product& product) {
  const std::vector<TileShape> tiles = cut(dataflow, array, product);
  const GemmTiming timing = time_of(dataflow, array, product);
  EXPECT_EQ(timing.total(), stepped(dataflow, array, tiles))
      << kNames[static_cast<int>(dataflow)] << " " << array.rows << "x" << array.columns
      << ", M=" << product.m << " N=" << product.n << " K=" << product.k;
  EXPECT_EQ(timing.memory_stall, 0u);
  EXPECT_EQ(timing.folds, tiles.size());
}

TEST(Systolic, EveryTileOfEverySmallArray) {
  for (const Dataflow dataflow : kDataflows) {
    for (std::uint64_t size = 0; size < 25; ++size) {
      const ArraySize array{1 + size / 5, 1 + size % 5};
      Product limit{array.rows, array.columns, 7};
      if (dataflow == Dataflow::kWeightStationary) limit = {7, array.columns, array.rows};
      if (dataflow == Dataflow::kInputStationary) limit = {array.columns, 7, array.rows};
      for (std::uint64_t i = 0; i < limit.m * limit.n * limit.k; ++i) {
        compare(dataflow, array,
                {1 + i % limit.m, 1 + i / limit.m % limit.n, 1 + i / limit.m / limit.n});
        if (HasFailure()) return;
      }
    }
  }
}

TEST(Systolic, EveryBurstOfOneStepOnASmallArray) {
  std::uint64_t bursts = 0;
  for (const Dataflow dataflow : kDataflows) {
    for (const ArraySize array : {ArraySize{2, 2}, ArraySize{3, 2}, ArraySize{1, 4}}) {
      for (std::uint64_t i = 0; i < 9 * 9 * 9; ++i) {
        const Product product{1 + i % 9, 1 + i / 9 % 9, 1 + i / 81};
        if (!is_one_step(array, cut(dataflow, array, product))) continue;
        compare(dataflow, array, product);
        if (HasFailure()) return;
        ++bursts;
      }
    }
  }
  EXPECT_GT(bursts, 2000u);
}

TEST(Systolic, BurstsOfOneStep) {
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const ArraySize array{1 + random() % 5, 1 + random() % 5};
    const Product product{1 + random() % 24, 1 + random() % 24, 1 + random() % 24};
    const Dataflow dataflow = kDataflows[i % 3];
    if (!is_one_step(array, cut(dataflow, array, product))) continue;
    compare(dataflow, array, product);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace shmgemm::model
