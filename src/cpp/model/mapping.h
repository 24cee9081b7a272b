// How the model `systolic` cuts a GEMM: blocks (tiles of C), steps (pieces of K), their order and
// their distribution over cores and arrays. Specified in docs/systolic.md.
#pragma once

#include <cstdint>

#include "model/machine.h"
#include "model/step_timing.h"
#include "model/timing_model.h"

namespace shmgemm::model {

struct Mapping {
  // std::overflow_error where a figure exceeds 63 bits.
  Mapping(const Machine& machine, const GemmShape& shape);

  TileSize tile;  // all but those at an edge
  Parts parts;
  std::uint64_t m_tiles = 0, n_tiles = 0, k_steps = 0;
  bool m_inner = false;  // consecutive blocks share a tile of B
  std::uint64_t blocks = 0;
};

// A block by its number in the order of the mapping.
struct BlockPlace {
  std::uint64_t entry, m, n;
};
BlockPlace block_place(const Mapping& mapping, std::uint64_t block);

// Cycles in which the memory moves the two input tiles of a step; 0 where nothing limits it.
Cycle load_cycles(const Machine& machine, TileSize tile, std::uint64_t input_bytes);

}  // namespace shmgemm::model
