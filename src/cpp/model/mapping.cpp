#include "model/mapping.h"

#include <algorithm>
#include <limits>

#include "model/checked.h"

namespace shmgemm::model {
namespace {

using Wide = unsigned __int128;

// A step takes at least this many times the array's half perimeter, so that filling and draining
// it is a small part.
constexpr std::uint64_t kStepPerSide = 8;
constexpr std::uint64_t kUnlimitedSide = std::uint64_t{1} << 31;

std::uint64_t round_down(std::uint64_t value, std::uint64_t granule) {
  return value / granule * granule;
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t granule) {
  return divide_up(value, granule) * granule;
}

std::uint64_t square_root(std::uint64_t value) {
  std::uint64_t low = 0, high = std::uint64_t{1} << 32;
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    (middle <= value / middle ? low : high) = middle;
  }
  return low;
}

// ceil(bytes * clock * cores / bandwidth): a core's share of the memory.
std::uint64_t transfer_cycles(const Machine& machine, std::uint64_t bytes) {
  const Wide scaled = Wide{bytes} * machine.clock_hz * machine.cores;
  const Wide cycles = (scaled + machine.memory_bw - 1) / machine.memory_bw;
  return checked(cycles > std::numeric_limits<std::uint64_t>::max(),
                 static_cast<std::uint64_t>(cycles));
}

class Mapper {
 public:
  Mapper(const Machine& machine, const GemmShape& shape)
      : machine_(machine), shape_(shape), granules_(granules(machine)) {}

  TileSize tile() {
    balance();
    fit_scratchpads();
    fit_accumulator();
    occupy_cores();
    tile_.m = even(shape_.m, tile_.m, granules_.m);
    tile_.n = even(shape_.n, tile_.n, granules_.n);
    tile_.k = even(shape_.k, step_terms(), granules_.k);
    return tile_;
  }

 private:
  // The square tile whose loads take as long as its work (and whose streams are worth the filling
  // of an array), or a flat one of the same size.
  void balance() {
    const std::uint64_t macs = machine_.core_macs_per_cycle();
    std::uint64_t side = kUnlimitedSide;
    if (machine_.memory_bw != 0) {
      side = std::min(side, transfer_cycles(machine_, 2 * shape_.input_bytes * macs));
    }
    side = std::max(side, machine_.array.rows + machine_.array.columns);
    const std::uint64_t x = round_up(side, granules_.m), y = round_up(side, granules_.n);
    tile_.m = std::min(shape_.m, x);
    tile_.n = std::min(shape_.n, y);
    if (tile_.m < x) {
      tile_.n = std::min(shape_.n, std::max(y, round_down(x * y / tile_.m, granules_.n)));
    } else if (tile_.n < y) {
      tile_.m = std::min(shape_.m, std::max(x, round_down(x * y / tile_.n, granules_.m)));
    }
  }

  void fit_scratchpads() {
    const std::uint64_t term_bytes = std::min(shape_.k, granules_.k) * shape_.input_bytes;
    tile_.m = at_most(tile_.m, machine_.half_a_bytes / term_bytes, granules_.m);
    tile_.n = at_most(tile_.n, machine_.half_b_bytes / term_bytes, granules_.n);
  }

  void fit_accumulator() {
    const std::uint64_t sums = machine_.half_c_bytes / kSumBytes;
    if (tile_.m <= sums / tile_.n) return;
    const std::uint64_t columns =
        std::max(std::min(square_root(sums), sums / granules_.m), sums / tile_.m);
    if (columns < tile_.n) {
      tile_.n = std::max(std::min(shape_.n, granules_.n), round_down(columns, granules_.n));
    }
    tile_.m = at_most(tile_.m, sums / tile_.n, granules_.m);
  }

  void occupy_cores() {
    while (blocks_below_cores()) {
      const std::uint64_t m = divide_up(tile_.m, granules_.m), n = divide_up(tile_.n, granules_.n);
      if (m == 1 && n == 1) return;
      if (m >= n) {
        tile_.m = divide_up(m, 2) * granules_.m;
      } else {
        tile_.n = divide_up(n, 2) * granules_.n;
      }
    }
  }

  bool blocks_below_cores() const {
    const Wide blocks =
        Wide{divide_up(shape_.m, tile_.m)} * divide_up(shape_.n, tile_.n) * shape_.batch;
    return blocks < machine_.cores;
  }

  std::uint64_t step_terms() const {
    const std::uint64_t room = std::min(machine_.half_a_bytes / (tile_.m * shape_.input_bytes),
                                        machine_.half_b_bytes / (tile_.n * shape_.input_bytes));
    const std::uint64_t most = at_most(shape_.k, room, granules_.k);
    const std::uint64_t enough = kStepPerSide * (machine_.array.rows + machine_.array.columns);
    std::uint64_t terms = std::min(most, granules_.k);
    while (terms < most && step_cycles(terms) < enough) terms = std::min(most, 2 * terms);
    return terms;
  }

  Cycle step_cycles(std::uint64_t terms) const {
    const TileSize step{tile_.m, tile_.n, terms};
    return std::max(load_cycles(machine_, step, shape_.input_bytes),
                    occupancy(machine_, step, best_parts(machine_, step)));
  }

  static std::uint64_t at_most(std::uint64_t side, std::uint64_t limit, std::uint64_t granule) {
    return side <= limit ? side : round_down(limit, granule);
  }

  static std::uint64_t even(std::uint64_t whole, std::uint64_t tile, std::uint64_t granule) {
    return std::min(whole, round_up(divide_up(whole, divide_up(whole, tile)), granule));
  }

  const Machine& machine_;
  const GemmShape& shape_;
  const Granules granules_;
  TileSize tile_;
};

bool fewer_bytes_with_m_inner(const Mapping& mapping, const GemmShape& shape) {
  const Wide a = Wide{shape.m} * shape.k, b = Wide{shape.k} * shape.n;
  return mapping.k_steps == 1 && a * mapping.n_tiles + b < a + b * mapping.m_tiles;
}

}  // namespace

Mapping::Mapping(const Machine& machine, const GemmShape& shape)
    : tile(Mapper(machine, shape).tile()),
      parts(best_parts(machine, tile)),
      m_tiles(divide_up(shape.m, tile.m)),
      n_tiles(divide_up(shape.n, tile.n)),
      k_steps(divide_up(shape.k, tile.k)),
      m_inner(fewer_bytes_with_m_inner(*this, shape)),
      blocks(checked_multiply(m_tiles, n_tiles, shape.batch)) {}

BlockPlace block_place(const Mapping& mapping, std::uint64_t block) {
  const std::uint64_t of_entry = mapping.m_tiles * mapping.n_tiles;
  const std::uint64_t entry = block / of_entry, rest = block % of_entry;
  if (mapping.m_inner) return {entry, rest % mapping.m_tiles, rest / mapping.m_tiles};
  return {entry, rest / mapping.n_tiles, rest % mapping.n_tiles};
}

Cycle load_cycles(const Machine& machine, TileSize tile, std::uint64_t input_bytes) {
  if (machine.memory_bw == 0) return 0;
  return transfer_cycles(machine, checked_multiply(tile.m + tile.n, tile.k, input_bytes));
}

}  // namespace shmgemm::model
