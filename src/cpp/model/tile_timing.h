// How long tiles take on a systolic array of R x C PEs, as closed forms: one tile, the distance
// between two, and a burst of them. The array itself, register by register, is pe_array.h; tests
// hold the two equal. The derivation is in docs/pe-array.md.
#pragma once

#include <cstdint>
#include <vector>

#include "model/scheduler.h"

namespace shmgemm::model {

enum class Dataflow { kWeightStationary, kOutputStationary, kInputStationary };

struct ArraySize {
  std::uint64_t rows = 0;     // R
  std::uint64_t columns = 0;  // C
};

// A tile as the array sees it: r <= R rows and c <= C columns of PEs, and what streams through.
struct TileShape {
  std::uint64_t rows = 0;     // r: k (ws, is), m (os)
  std::uint64_t columns = 0;  // c: n (ws, os), m (is)
  std::uint64_t stream = 0;   // s: m (ws), k (os), n (is)
};

TileShape tile_shape(Dataflow dataflow, std::uint64_t m, std::uint64_t n, std::uint64_t k);

// Numbers of cycles. All but `load` count from the cycle in which the tile's first element enters
// to the cycle named, both included. A result is there when it stands in the register of the bottom
// row; whatever adds it to an accumulator does so in the cycle after.
struct TileTiming {
  Cycle load = 0;          // stationary rows that enter before: r (ws, is), 0 (os)
  Cycle last_mac = 0;      // s + r + c - 2
  Cycle first_result = 0;  // R (ws, is), s + R - 1 (os)
  Cycle last_result = 0;   // s + R + c - 2 (ws, is), s + r + R + c - 3 (os)
};

TileTiming tile_timing(Dataflow dataflow, ArraySize array, TileShape tile);

// The tile alone, from its first stationary row (ws, is) or first element (os): load + last_result.
Cycle tile_cycles(Dataflow dataflow, ArraySize array, TileShape tile);

// Cycles from the first element of `tile` to the earliest first element of `next`:
// max(s, r of next) (ws, is), max(s, s + r - s of next) (os).
Cycle issue_interval(Dataflow dataflow, TileShape tile, TileShape next);

// Tiles back to back, from the first cycle of the first one's load to the last result of any.
Cycle burst_cycles(Dataflow dataflow, ArraySize array, const std::vector<TileShape>& tiles);

}  // namespace shmgemm::model
