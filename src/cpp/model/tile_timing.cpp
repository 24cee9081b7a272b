#include "model/tile_timing.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace shmgemm::model {
namespace {

void check(ArraySize array, TileShape tile) {
  if (tile.rows == 0 || tile.columns == 0 || tile.stream == 0 || tile.rows > array.rows ||
      tile.columns > array.columns) {
    throw std::invalid_argument("tile of " + std::to_string(tile.rows) + " rows, " +
                                std::to_string(tile.columns) + " columns, stream " +
                                std::to_string(tile.stream) + " on an array of " +
                                std::to_string(array.rows) + "x" + std::to_string(array.columns) +
                                ": each must be at least 1, rows and columns at most the array's");
  }
}

}  // namespace

TileShape tile_shape(Dataflow dataflow, std::uint64_t m, std::uint64_t n, std::uint64_t k) {
  switch (dataflow) {
    case Dataflow::kWeightStationary:
      return {k, n, m};
    case Dataflow::kOutputStationary:
      return {m, n, k};
    case Dataflow::kInputStationary:
      return {k, m, n};
  }
  throw std::logic_error("unknown dataflow");
}

TileTiming tile_timing(Dataflow dataflow, ArraySize array, TileShape tile) {
  check(array, tile);
  TileTiming timing;
  timing.last_mac = tile.stream + tile.rows + tile.columns - 2;
  if (dataflow == Dataflow::kOutputStationary) {
    timing.first_result = tile.stream + array.rows - 1;
    timing.last_result = tile.stream + tile.rows + array.rows + tile.columns - 3;
  } else {
    timing.load = tile.rows;
    timing.first_result = array.rows;
    timing.last_result = tile.stream + array.rows + tile.columns - 2;
  }
  return timing;
}

Cycle tile_cycles(Dataflow dataflow, ArraySize array, TileShape tile) {
  const TileTiming timing = tile_timing(dataflow, array, tile);
  return timing.load + timing.last_result;
}

Cycle issue_interval(Dataflow dataflow, TileShape tile, TileShape next) {
  if (dataflow != Dataflow::kOutputStationary) return std::max(tile.stream, next.rows);
  return std::max(tile.stream + tile.rows, tile.stream + next.stream) - next.stream;
}

Cycle burst_cycles(Dataflow dataflow, ArraySize array, const std::vector<TileShape>& tiles) {
  Cycle start = 0, end = 0;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const TileTiming timing = tile_timing(dataflow, array, tiles[i]);
    start += i == 0 ? timing.load : issue_interval(dataflow, tiles[i - 1], tiles[i]);
    end = std::max(end, start + timing.last_result);
  }
  return end;
}

}  // namespace shmgemm::model
