// A GPU-like device: the product is cut into thread blocks, which are dealt to the cores in waves;
// each block walks along K, its next loads behind the work of its core's matrix unit. The blocks of
// a wave share the memory's bandwidth, and the tiles they have in common are read once. The formula
// is in docs/timing-models.md.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "model/checked.h"
#include "model/registry.h"
#include "model/single_event.h"

namespace shmgemm::model {
namespace {

__extension__ typedef unsigned __int128 Wide;

constexpr std::uint64_t kFragment = 16;  // a matrix instruction works on 16 x 16 x 16

// A product narrower than a tile gets a kernel with a narrower tile, in whole fragments.
std::uint64_t narrowed(std::uint64_t tile, std::uint64_t extent) {
  return extent >= tile ? tile : std::min(tile, divide_up(extent, kFragment) * kFragment);
}

// How one GEMM is cut. `rows`, `columns` and `depth` are what a matrix unit works on, the `loaded_`
// ones what is there of the matrices.
struct Grid {
  std::uint64_t rows, columns, depth;
  std::uint64_t loaded_rows, loaded_columns, last_depth;
  std::uint64_t blocks_m, blocks_n;
  std::uint64_t steps;  // of a block
  std::uint64_t blocks, waves, last_wave;
};

// What a wave's blocks cover. Blocks of one row work on the same tiles of A, those of one column on
// the same tiles of B.
struct Patch {
  std::uint64_t rows = 0, columns = 0;  // in blocks
};

// The patch of at least `blocks` blocks within the grid of one entry whose tiles have the least
// elements; of equal ones that with the fewest rows. Its shorter side never exceeds the side of a
// square: two such sides would hold the blocks with room to spare.
Patch smallest_patch(const Grid& grid, std::uint64_t blocks) {
  Patch smallest;
  std::uint64_t least = UINT64_MAX;
  const auto consider = [&](std::uint64_t rows, std::uint64_t columns) {
    if (rows > grid.blocks_m || columns > grid.blocks_n) return;
    const std::uint64_t elements = rows * grid.loaded_rows + columns * grid.loaded_columns;
    if (elements > least || (elements == least && rows >= smallest.rows)) return;
    least = elements;
    smallest = {rows, columns};
  };
  for (std::uint64_t side = 1; (side - 1) * (side - 1) < blocks; ++side) {
    const std::uint64_t other = divide_up(blocks, side);
    consider(side, other);
    consider(other, side);
  }
  return smallest;
}

// A wave takes as many whole entries of the batch as it can and a patch of one more.
Patch patch_of(const Grid& grid, std::uint64_t blocks) {
  const std::uint64_t entry = grid.blocks_m * grid.blocks_n;
  const std::uint64_t whole = blocks / entry;
  const Patch rest = smallest_patch(grid, blocks % entry);
  return {whole * grid.blocks_m + rest.rows, whole * grid.blocks_n + rest.columns};
}

struct Wave {
  Cycle busy = 0, exposed = 0, stall = 0;
  std::uint64_t tiles_a = 0, tiles_b = 0;  // distinct ones, of a step
};

class Simt final : public SingleEvent {
 public:
  explicit Simt(const ModelContext& context)
      : SingleEvent(context.scheduler),
        clock_hz_(context.parameters.count("clock")),
        cores_(context.parameters.count("cores")),
        memory_bw_(context.parameters.count("memory_bw")),
        macs_(context.parameters.count("macs_per_core")),
        tile_m_(context.parameters.count("tile_m")),
        tile_n_(context.parameters.count("tile_n")),
        tile_k_(context.parameters.count("tile_k")),
        dispatch_(context.parameters.count("dispatch")) {}

  std::uint64_t peak_macs_per_cycle() const override { return cores_ * macs_; }

 private:
  std::string machine() const override { return std::to_string(cores_) + " cores"; }

  GemmTiming timing_of(const GemmShape& shape) const override {
    const Grid grid = grid_of(shape);
    const Wave full = wave_of(shape, grid, std::min(cores_, grid.blocks));
    const Wave last = wave_of(shape, grid, grid.last_wave);
    const auto sum = [&](std::uint64_t Wave::* part) {
      return checked_add(checked_multiply(grid.waves - 1, full.*part), last.*part);
    };
    GemmTiming timing;
    timing.busy = sum(&Wave::busy);
    timing.fill_drain = sum(&Wave::exposed);
    timing.memory_stall = sum(&Wave::stall);
    timing.dispatch = dispatch_;
    const Cycle working =
        checked_add(checked_add(timing.busy, timing.fill_drain), timing.memory_stall);
    checked_add(working, dispatch_);
    timing.macs = checked_multiply(shape.m, shape.n, shape.k, shape.batch);
    timing.folds = grid.waves;
    count_utilization(shape, grid, working, timing);
    count_traffic(shape, grid, sum(&Wave::tiles_a), sum(&Wave::tiles_b), timing);
    return timing;
  }

  Grid grid_of(const GemmShape& shape) const {
    Grid grid{};
    grid.rows = narrowed(tile_m_, shape.m);
    grid.columns = narrowed(tile_n_, shape.n);
    grid.depth = narrowed(tile_k_, shape.k);
    grid.loaded_rows = std::min(grid.rows, shape.m);
    grid.loaded_columns = std::min(grid.columns, shape.n);
    grid.blocks_m = divide_up(shape.m, grid.rows);
    grid.blocks_n = divide_up(shape.n, grid.columns);
    grid.steps = divide_up(shape.k, grid.depth);
    grid.last_depth = shape.k - (grid.steps - 1) * grid.depth;
    grid.blocks = checked_multiply(grid.blocks_m, grid.blocks_n, shape.batch);
    grid.waves = divide_up(grid.blocks, cores_);
    grid.last_wave = grid.blocks - (grid.waves - 1) * cores_;
    return grid;
  }

  // `blocks` equal blocks in step with each other, each on a core of its own.
  Wave wave_of(const GemmShape& shape, const Grid& grid, std::uint64_t blocks) const {
    const Patch patch = patch_of(grid, blocks);
    const Wide lines = Wide{patch.rows * grid.loaded_rows + patch.columns * grid.loaded_columns} *
                       shape.input_bytes;
    const Cycle work = divide_up(grid.rows * grid.columns * grid.depth, macs_);
    const Cycle load = transfer(lines * grid.depth);
    const Cycle last_load = transfer(lines * grid.last_depth);
    const Wide output = Wide{grid.loaded_rows * grid.loaded_columns} * shape.output_bytes * blocks;
    const Wide bias = shape.bias ? patch.columns * grid.loaded_columns * kBiasBytes : 0;
    Wave wave;
    wave.tiles_a = patch.rows;
    wave.tiles_b = patch.columns;
    wave.busy = checked_multiply(grid.steps, work);
    wave.exposed = checked_add(grid.steps == 1 ? last_load : load,
                               transfer(output * (shape.accumulate ? 2 : 1) + bias));
    if (grid.steps > 1) {
      wave.stall = checked_add(checked_multiply(grid.steps - 2, excess(load, work)),
                               excess(last_load, work));
    }
    return wave;
  }

  static Cycle excess(Cycle load, Cycle work) { return load > work ? load - work : 0; }

  // Cycles in which the memory moves this many bytes, rounded up.
  Cycle transfer(Wide bytes) const {
    const Wide cycles = (bytes * clock_hz_ + memory_bw_ - 1) / memory_bw_;
    return checked(cycles > UINT64_MAX, static_cast<Cycle>(cycles));
  }

  // A fold is a wave. Its PEs are all cores' matrix units; those of cores without a block, and
  // those that work on padding, are not used.
  void count_utilization(const GemmShape& shape, const Grid& grid, Cycle working,
                         GemmTiming& timing) const {
    const double slots = static_cast<double>(grid.waves) * static_cast<double>(cores_);
    const double tile = static_cast<double>(grid.rows) * static_cast<double>(grid.columns);
    timing.mapping_efficiency = static_cast<double>(shape.m) * static_cast<double>(shape.n) *
                                static_cast<double>(shape.batch) / (slots * tile);
    timing.compute_utilization =
        static_cast<double>(timing.macs) /
        (static_cast<double>(peak_macs_per_cycle()) * static_cast<double>(working));
  }

  // Memory is read for the distinct tiles of each wave, a core's shared memory for every tile of
  // its blocks; sums are in registers.
  void count_traffic(const GemmShape& shape, const Grid& grid, std::uint64_t tiles_a,
                     std::uint64_t tiles_b, GemmTiming& timing) const {
    const std::uint64_t rows = elements_of(tiles_a, shape.m, grid.blocks_m);
    const std::uint64_t columns = elements_of(tiles_b, shape.n, grid.blocks_n);
    auto& reads = timing.read_bytes[kMemory];
    reads[kA] = checked_multiply(rows, shape.k, shape.input_bytes);
    reads[kB] = checked_multiply(columns, shape.k, shape.input_bytes);
    if (shape.bias) reads[kBias] = checked_multiply(columns, kBiasBytes);
    auto& shared = timing.read_bytes[kScratchpad];
    shared[kA] = checked_multiply(shape.m, shape.k, grid.blocks_n, shape.input_bytes, shape.batch);
    shared[kB] = checked_multiply(shape.k, shape.n, grid.blocks_m, shape.input_bytes, shape.batch);
    const std::uint64_t c_bytes =
        checked_multiply(shape.m, shape.n, shape.output_bytes, shape.batch);
    timing.write_bytes[kMemory][kC] = c_bytes;
    if (shape.accumulate) reads[kC] = c_bytes;
  }

  // Rows or columns in so many tiles, of which an `of`-th part is the one at the edge; rounded up.
  static std::uint64_t elements_of(std::uint64_t tiles, std::uint64_t extent, std::uint64_t of) {
    const Wide elements = (Wide{tiles} * extent + of - 1) / of;
    return checked(elements > UINT64_MAX, static_cast<std::uint64_t>(elements));
  }

  const std::uint64_t clock_hz_;
  const std::uint64_t cores_;
  const std::uint64_t memory_bw_;
  const std::uint64_t macs_;
  const std::uint64_t tile_m_;
  const std::uint64_t tile_n_;
  const std::uint64_t tile_k_;
  const Cycle dispatch_;
};

std::vector<Parameter> simt_parameters() {
  const std::uint64_t kMaxTile = 4096, kMega = 1000000;
  return {
      {"cores", Unit::kCount, "128", "cores, each with a matrix unit and one block", 1, 65536, {}},
      {"memory_bw",
       Unit::kBytesPerSecond,
       "900GB/s",
       "bandwidth of the memory, for all cores",
       kMega,
       1000 * kMega * kMega,
       {}},
      {"macs_per_core",
       Unit::kCount,
       "512",
       "MACs a cycle of a matrix unit (V100: 8 x 64)",
       1,
       kMega,
       {}},
      {"tile_m", Unit::kCount, "128", "rows of C of a thread block", 1, kMaxTile, {}},
      {"tile_n", Unit::kCount, "128", "columns of C of a thread block", 1, kMaxTile, {}},
      {"tile_k",
       Unit::kCount,
       "32",
       "terms of K that a block works off in a step",
       1,
       kMaxTile,
       {}},
      {"dispatch",
       Unit::kCycles,
       "1000",
       "cycles from an op's start to its first wave",
       0,
       1000 * kMega,
       {}},
  };
}

ModelInfo describe() {
  ModelInfo info;
  info.name = "simt";
  info.summary = "GPU-like: waves of thread blocks over cores that share tiles and bandwidth";
  info.parameters = simt_parameters();
  info.create = [](const ModelContext& context) { return std::make_unique<Simt>(context); };
  return info;
}

const Registration registration{describe()};

}  // namespace
}  // namespace shmgemm::model
