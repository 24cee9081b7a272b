// A systolic array of R x C PEs with what feeds it and what collects from it, stepped cycle by
// cycle, moving real values: the reference for the closed forms of tile_timing.h and for the order
// of additions that numerics = "bit_accurate" means. Specified in docs/pe-array.md. Slow by nature;
// nothing of it runs when a GEMM is simulated.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/pe_grid.h"
#include "model/tile_timing.h"

namespace shmgemm::model {

// C = A B of one tile, row-major. Which dimension lies where is the dataflow's (tile_shape()).
template <typename Arithmetic>
struct ArrayTile {
  std::uint64_t m = 0, n = 0, k = 0;
  std::vector<typename Arithmetic::Input> a;  // m x k
  std::vector<typename Arithmetic::Input> b;  // k x n
};

// Cycles count from 0, in which the first tile's first element of any kind enters. Each is the one
// whose closing edge does what the name says.
template <typename Arithmetic>
struct TileRun {
  std::vector<typename Arithmetic::Sum> c;  // m x n; a NaN is the positive quiet one
  Cycle first_load = 0;                     // first and last stationary row (ws, is)
  Cycle last_load = 0;
  Cycle first_input = 0;  // row 0 of the array takes the first streamed element
  Cycle first_result = 0;
  Cycle last_result = 0;
};

template <typename Arithmetic>
struct ArrayRun {
  std::vector<TileRun<Arithmetic>> tiles;
  Cycle cycles = 0;  // up to and with the last result
};

template <typename Arithmetic>
class PeArray {
 public:
  using Tile = ArrayTile<Arithmetic>;
  using Run = ArrayRun<Arithmetic>;
  // Sees each cycle before its closing edge. Of the two grids the one in use is called.
  struct Observer {
    using Weights = WeightGrid<Arithmetic>;
    using Outputs = OutputGrid<Arithmetic>;
    std::function<void(Cycle, const Weights&, const typename Weights::Ports&)> weights;
    std::function<void(Cycle, const Outputs&, const typename Outputs::Ports&)> outputs;
  };

  static constexpr std::uint64_t kMaxSide = 64;     // rows, columns
  static constexpr std::uint64_t kMaxStream = 256;  // of one tile

  // std::invalid_argument outside those limits.
  PeArray(Dataflow dataflow, ArraySize size);

  // The tiles back to back, each as early as the registers allow. std::invalid_argument for a tile
  // that does not fit.
  Run run(const std::vector<Tile>& tiles, const Observer& observer = {}) const;

 private:
  void check(const std::vector<Tile>& tiles) const;

  Dataflow dataflow_;
  ArraySize size_;
};

extern template class PeArray<Float32Arithmetic>;
extern template class PeArray<Int8Arithmetic>;

}  // namespace shmgemm::model
