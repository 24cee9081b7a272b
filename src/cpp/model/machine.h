// What the model `systolic` is told of its device: cores with arrays, scratchpads and an
// accumulator. Specified in docs/systolic.md.
#pragma once

#include <cstdint>
#include <vector>

#include "model/registry.h"
#include "model/tile_timing.h"

namespace shmgemm::model {

struct Machine {
  // ParameterError where no tile fits a scratchpad or the accumulator.
  explicit Machine(const Parameters& parameters);

  std::uint64_t peak_macs_per_cycle() const { return core_macs_per_cycle() * cores; }
  std::uint64_t core_macs_per_cycle() const { return array.rows * array.columns * arrays; }

  Dataflow dataflow;
  ArraySize array;
  std::uint64_t cores;
  std::uint64_t arrays;  // of a core
  std::uint64_t clock_hz;
  std::uint64_t memory_bw;  // bytes per second; 0: unlimited
  // Half of each: the other half is worked on.
  std::uint64_t half_a_bytes;
  std::uint64_t half_b_bytes;
  std::uint64_t half_c_bytes;
  Cycle dispatch;
};

inline constexpr std::uint64_t kSumBytes = 4;  // of an element in the accumulator

// A dimension of a tile is a multiple of its granule, or all of the matrix's.
struct Granules {
  std::uint64_t m, n, k;
};
Granules granules(const Machine& machine);

std::vector<Parameter> machine_parameters();

}  // namespace shmgemm::model
