// A block of C keeps two numbers for each element: the sum of the present chunk of K and the total
// of the chunks before it. Blocks of A and B are widened into panels, a tile's rows or columns side
// by side for each k, and a tile of C goes through the block's k in registers. Products and sums
// are separate instructions (-ffp-contract=off, Flags.cmake); a test looks for fused ones by value.
#include "compute/bit_accurate.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include "compute/convert.h"

namespace shmgemm::compute {
namespace {

constexpr std::uint64_t kBlockRows = 128;
constexpr std::uint64_t kBlockColumns = 256;
constexpr std::uint64_t kBlockK = 256;
constexpr std::uint64_t kTileRows = 4;  // fewer would wait for additions to end
constexpr std::uint64_t kTileVectors = 2;
constexpr std::uint64_t kMaxTileColumns = 32;
static_assert(kBlockRows % kTileRows == 0 && kBlockColumns % kMaxTileColumns == 0);

struct Scratch {
  alignas(64) float a[kBlockRows * kBlockK];
  alignas(64) float b[kBlockK * kBlockColumns];
  alignas(64) float sum[kBlockRows * kBlockColumns];    // of the present chunk, tile by tile
  alignas(64) float total[kBlockRows * kBlockColumns];  // of the chunks that have ended
  alignas(64) float line[std::max({kBlockRows, kBlockColumns, kBlockK})];
  alignas(64) float old[kBlockColumns];
};

Scratch& scratch_of_this_thread() {
  thread_local const std::unique_ptr<Scratch> scratch(new Scratch);
  return *scratch;
}

struct Block {
  std::uint64_t row, rows, column, columns;
};

std::uint64_t divide_up(std::uint64_t value, std::uint64_t by) { return (value + by - 1) / by; }

// --- one tile of C -------------------------------------------------------------------------------

struct TileRun {
  const float* a;  // count x kTileRows
  const float* b;  // count x the tile's columns
  std::uint64_t count;
  std::uint64_t chunk;  // terms of K in a chunk
  std::uint64_t phase;  // of them already in `sum`
  float* sum;
  float* total;
};

template <unsigned bytes>
[[gnu::always_inline]] inline void run_tile(TileRun run) {
  typedef float Lanes __attribute__((vector_size(bytes), may_alias));
  constexpr std::uint64_t lanes = bytes / sizeof(float);
  Lanes* const sums = reinterpret_cast<Lanes*>(run.sum);
  Lanes* const totals = reinterpret_cast<Lanes*>(run.total);
  Lanes sum[kTileRows][kTileVectors];
  for (unsigned r = 0; r < kTileRows; ++r) {
    for (unsigned v = 0; v < kTileVectors; ++v) sum[r][v] = sums[r * kTileVectors + v];
  }
  while (run.count > 0) {
    const std::uint64_t steps = std::min(run.count, run.chunk - run.phase);
    for (std::uint64_t step = 0; step < steps; ++step) {
      const Lanes* const b = reinterpret_cast<const Lanes*>(run.b);
      for (unsigned r = 0; r < kTileRows; ++r) {
        for (unsigned v = 0; v < kTileVectors; ++v) sum[r][v] = sum[r][v] + run.a[r] * b[v];
      }
      run.a += kTileRows;
      run.b += kTileVectors * lanes;
    }
    run.count -= steps;
    run.phase += steps;
    if (run.phase < run.chunk) break;
    run.phase = 0;
    for (unsigned r = 0; r < kTileRows; ++r) {
      for (unsigned v = 0; v < kTileVectors; ++v) {
        totals[r * kTileVectors + v] = totals[r * kTileVectors + v] + sum[r][v];
        sum[r][v] = Lanes{};
      }
    }
  }
  for (unsigned r = 0; r < kTileRows; ++r) {
    for (unsigned v = 0; v < kTileVectors; ++v) sums[r * kTileVectors + v] = sum[r][v];
  }
}

struct Kernel {
  std::uint64_t columns;  // of a tile
  void (*run)(TileRun);
};

void run_baseline(TileRun run) { run_tile<16>(run); }

#if defined(__x86_64__)
__attribute__((target("avx2"))) void run_avx2(TileRun run) { run_tile<32>(run); }
__attribute__((target("avx512f"))) void run_avx512(TileRun run) { run_tile<64>(run); }

Kernel kernel_of(VectorUnit unit) {
  if (unit == VectorUnit::kAvx512) return {kTileVectors * 16, run_avx512};
  if (unit == VectorUnit::kAvx2) return {kTileVectors * 8, run_avx2};
  return {kTileVectors * 4, run_baseline};
}

bool has(VectorUnit unit) {
  if (unit == VectorUnit::kAvx512) return __builtin_cpu_supports("avx512f") != 0;
  if (unit == VectorUnit::kAvx2) return __builtin_cpu_supports("avx2") != 0;
  return true;
}
#else
Kernel kernel_of(VectorUnit) { return {kTileVectors * 4, run_baseline}; }
bool has(VectorUnit unit) { return unit == VectorUnit::kBaseline; }
#endif

// --- operands ------------------------------------------------------------------------------------

// A block of an operand: `count` rows of A or columns of B, k_count terms of each.
struct Source {
  Dtype type;
  const char* first;  // element
  std::uint64_t leading;
  bool lines_along_k;  // what is contiguous in memory: K, or the rows or columns
  std::uint64_t count, k_count;
};

// Into panels of `width` side by side: panel[k * width + i]. The last panel is filled up with
// zeros.
void pack(const Source& source, std::uint64_t width, float* panels) {
  float* const line = scratch_of_this_thread().line;
  const std::uint64_t panel = width * source.k_count;
  const std::uint64_t step = source.leading * bytes_of(source.type);
  if (source.count % width != 0) {
    std::memset(panels + source.count / width * panel, 0, panel * sizeof(float));
  }
  if (source.lines_along_k) {
    for (std::uint64_t i = 0; i < source.count; ++i) {
      widen(source.type, source.first + i * step, line, source.k_count);
      float* const out = panels + i / width * panel + i % width;
      for (std::uint64_t k = 0; k < source.k_count; ++k) out[k * width] = line[k];
    }
    return;
  }
  for (std::uint64_t k = 0; k < source.k_count; ++k) {
    widen(source.type, source.first + k * step, line, source.count);
    for (std::uint64_t i = 0; i < source.count; i += width) {
      std::memcpy(panels + i / width * panel + k * width, line + i,
                  std::min(width, source.count - i) * sizeof(float));
    }
  }
}

Source source_of(Dtype type, const void* base, std::uint64_t leading, bool lines_along_k,
                 std::uint64_t start, std::uint64_t count, std::uint64_t k, std::uint64_t k_count) {
  const std::uint64_t element = lines_along_k ? start * leading + k : k * leading + start;
  return {type,    static_cast<const char*>(base) + element * bytes_of(type),
          leading, lines_along_k,
          count,   k_count};
}

const void* entry_of(const void* base, Dtype type, std::uint64_t stride, std::uint64_t entry) {
  return static_cast<const char*>(base) + entry * stride * bytes_of(type);
}

// --- one block of C ------------------------------------------------------------------------------

void sum_block(const Gemm& gemm, std::uint64_t entry, const Block& block, const Kernel& kernel) {
  Scratch& scratch = scratch_of_this_thread();
  const void* const a = entry_of(gemm.a, gemm.input, gemm.stride_a, entry);
  const void* const b = entry_of(gemm.b, gemm.input, gemm.stride_b, entry);
  const std::uint64_t tile_rows = divide_up(block.rows, kTileRows);
  const std::uint64_t tile_columns = divide_up(block.columns, kernel.columns);
  const std::uint64_t tile = kTileRows * kernel.columns;
  std::memset(scratch.sum, 0, tile_rows * tile_columns * tile * sizeof(float));
  std::memset(scratch.total, 0, tile_rows * tile_columns * tile * sizeof(float));
  for (std::uint64_t k = 0; k < gemm.k; k += kBlockK) {
    const std::uint64_t count = std::min<std::uint64_t>(kBlockK, gemm.k - k);
    pack(source_of(gemm.input, a, gemm.lda, !gemm.transpose_a, block.row, block.rows, k, count),
         kTileRows, scratch.a);
    pack(
        source_of(gemm.input, b, gemm.ldb, gemm.transpose_b, block.column, block.columns, k, count),
        kernel.columns, scratch.b);
    for (std::uint64_t j = 0; j < tile_columns; ++j) {
      for (std::uint64_t i = 0; i < tile_rows; ++i) {
        const std::uint64_t at = (j * tile_rows + i) * tile;
        kernel.run({scratch.a + i * kTileRows * count, scratch.b + j * kernel.columns * count,
                    count, gemm.accumulation_length, k % gemm.accumulation_length, scratch.sum + at,
                    scratch.total + at});
      }
    }
  }
}

// Adds the last chunk, the bias and C as it was, in this order, and rounds into C.
void finish_row(const Gemm& gemm, const Block& block, std::uint64_t row, char* c,
                const Kernel& kernel) {
  Scratch& scratch = scratch_of_this_thread();
  float* const line = scratch.line;
  const std::uint64_t tile_rows = divide_up(block.rows, kTileRows);
  for (std::uint64_t column = 0; column < block.columns; ++column) {
    const std::uint64_t tile = column / kernel.columns * tile_rows + row / kTileRows;
    const std::uint64_t at =
        (tile * kTileRows + row % kTileRows) * kernel.columns + column % kernel.columns;
    // A last chunk that was full left +0 here, and no total is -0.
    line[column] = scratch.total[at] + scratch.sum[at];
  }
  if (gemm.bias != nullptr) {
    const float* const bias = static_cast<const float*>(gemm.bias) + block.column;
    for (std::uint64_t column = 0; column < block.columns; ++column) line[column] += bias[column];
  }
  if (gemm.accumulate) {
    widen(gemm.output, c, scratch.old, block.columns);
    for (std::uint64_t column = 0; column < block.columns; ++column) {
      line[column] += scratch.old[column];
    }
  }
  for (std::uint64_t column = 0; column < block.columns; ++column) {
    const float value = line[column];
    line[column] = value == value ? value : std::numeric_limits<float>::quiet_NaN();
  }
  narrow(line, gemm.output, c, block.columns);
}

}  // namespace

std::vector<VectorUnit> usable_vector_units() {
  std::vector<VectorUnit> units;
  for (const VectorUnit unit : {VectorUnit::kBaseline, VectorUnit::kAvx2, VectorUnit::kAvx512}) {
    if (has(unit)) units.push_back(unit);
  }
  return units;
}

VectorUnit widest_vector_unit() {
  static const VectorUnit widest = usable_vector_units().back();
  return widest;
}

void run_bit_accurate(const Gemm& gemm, const Part& part, std::uint64_t entry, VectorUnit unit) {
  const Kernel kernel = kernel_of(unit);
  const std::uint64_t element = bytes_of(gemm.output);
  for (std::uint64_t row = part.row; row < part.row_end; row += kBlockRows) {
    for (std::uint64_t column = part.column; column < part.column_end; column += kBlockColumns) {
      const Block block{row, std::min(kBlockRows, part.row_end - row), column,
                        std::min(kBlockColumns, part.column_end - column)};
      sum_block(gemm, entry, block, kernel);
      for (std::uint64_t i = 0; i < block.rows; ++i) {
        const std::uint64_t at = entry * gemm.stride_c + (row + i) * gemm.ldc + column;
        finish_row(gemm, block, i, static_cast<char*>(gemm.c) + at * element, kernel);
      }
    }
  }
}

}  // namespace shmgemm::compute
