// A step of the model `systolic`: one tile of A times one tile of B on the arrays of a core, as a
// closed form over its array tiles. Specified in docs/systolic.md.
#pragma once

#include <cstdint>

#include "model/machine.h"
#include "model/timing_model.h"

namespace shmgemm::model {

struct TileSize {
  std::uint64_t m = 0, n = 0, k = 0;
};

// How the arrays of a core share a tile: `m` x `n` parts.
struct Parts {
  std::uint64_t m = 1, n = 1;
};

// Sum over a step's array tiles (of the largest part) of the cycles each keeps its array.
std::uint64_t occupancy(const Machine& machine, TileSize tile, Parts parts);

// The parts with the least occupancy.
Parts best_parts(const Machine& machine, TileSize tile);

struct StepTiming {
  StepTiming() = default;
  StepTiming(const Machine& machine, TileSize tile, Parts parts);

  TileSize tile;
  Cycle occupancy = 0;
  Cycle busy = 0;        // sum of the streams
  Cycle stream = 0;      // s, of every array tile
  Cycle first_rows = 0;  // r of the first array tile
  Cycle last_rows = 0;   // r of the last one
  Cycle last_begin = 0;  // from the begin of the first array tile to that of the last
  Cycle end = 0;         // from the begin of the last array tile to the step's end
  Cycle free_a = 0;      // from there to the cycle in which A's half is free
  Cycle free_b = 0;
  // Of all parts:
  std::uint64_t folds = 0;
  std::uint64_t used_pes = 0;              // sum of r * c
  std::uint64_t reads_a = 0, reads_b = 0;  // elements, from the scratchpads
  std::uint64_t writes_c = 0;              // sums, to the accumulator
};

// From the begin of `last`'s last array tile to the earliest begin of `next`'s first one.
Cycle step_interval(Dataflow dataflow, const StepTiming& last, const StepTiming& next);

}  // namespace shmgemm::model
