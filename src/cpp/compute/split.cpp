// The constants were measured with OpenBLAS 0.3.34's AVX2 and AVX-512 kernels. With few rows
// cutting columns is nearly free and cutting rows is not, because each piece then packs all of B
// again; from 256 rows a piece on it is the other way round, by a little.
#include "compute/split.h"

#include <algorithm>

#include "compute/blas.h"

namespace shmgemm::compute {
namespace {

// About 20 us of one core: below it waking a thread costs more than it brings.
constexpr std::uint64_t kMinPieceMacs = 2u << 20;
constexpr std::uint64_t kMinPieceColumns = 96;
constexpr std::uint64_t kMinPieceRows = 128;
constexpr std::uint64_t kGoodPieceRows = 256;
constexpr std::uint64_t kMaxPieces = 4;        // of a product of ordinary size ...
constexpr std::uint64_t kMaxLargePieces = 16;  // ... and of one whose pieces stay large
constexpr std::uint64_t kMaxGroups = 32;       // of batch entries
constexpr std::uint64_t kLargeMacs = 1ull << 32;
constexpr std::uint64_t kRegisterBlock = 16;  // columns are cut at multiples of it

// Few rows: OpenBLAS has kernels that read A and B in place instead of packing them, but takes them
// only below these sizes of a call. Up to three times faster at 8 rows, no gain at 80.
constexpr std::uint64_t kInPlaceMacs = 1000000;
constexpr std::uint64_t kInPlaceMacsTransposed = 393216;
constexpr std::uint64_t kInPlaceRows = 64;
constexpr std::uint64_t kInPlaceRowsTransposed = 32;
constexpr std::uint64_t kInPlaceK = 384;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t by) { return (value + by - 1) / by; }
std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return divide_up(value, to) * to; }

std::uint64_t saturating_product(std::uint64_t x, std::uint64_t y) {
  std::uint64_t result = 0;
  return __builtin_mul_overflow(x, y, &result) ? UINT64_MAX : result;
}

std::uint64_t power_of_two_below(std::uint64_t value) {
  std::uint64_t power = 1;  // also of 0
  while (power <= value / 2) power *= 2;
  return power;
}

// Cuts a piece in two; false where both halves would be too small.
bool halve(Split& split) {
  const std::uint64_t rows = round_up(divide_up(split.rows, 2), kRegisterBlock);
  const std::uint64_t columns = round_up(divide_up(split.columns, 2), kRegisterBlock);
  if (split.rows >= split.columns && rows >= kGoodPieceRows) {
    split.rows = rows;
  } else if (columns >= kMinPieceColumns) {
    split.columns = columns;
  } else if (rows >= kMinPieceRows) {
    split.rows = rows;
  } else {
    return false;
  }
  return true;
}

}  // namespace

// Counts of pieces are powers of two, so that 2 or 4 threads end together. Large batches of small
// products are grouped instead.
Split split_of(const Gemm& gemm) {
  Split split{gemm.m, gemm.n, 1, 1, 1, gemm.batch};
  const std::uint64_t macs = saturating_product(saturating_product(gemm.m, gemm.n), gemm.k);
  const std::uint64_t most = macs >= kLargeMacs ? kMaxLargePieces : kMaxPieces;
  const std::uint64_t wanted = std::min(most, power_of_two_below(macs / kMinPieceMacs));
  if (wanted > 1) {
    for (std::uint64_t pieces = 1; pieces < wanted && halve(split); pieces *= 2) {
    }
    split.column_pieces = divide_up(gemm.n, split.columns);
    split.row_pieces = divide_up(gemm.m, split.rows);
  } else if (gemm.batch > 1) {
    const std::uint64_t total = saturating_product(macs, gemm.batch);
    const std::uint64_t groups = std::min<std::uint64_t>(
        {kMaxGroups, gemm.batch, power_of_two_below(total / kMinPieceMacs)});
    split.entries = divide_up(gemm.batch, groups);
    split.entry_pieces = divide_up(gemm.batch, split.entries);
  }
  return split;
}

Part part_of(const Gemm& gemm, const Split& split, std::uint64_t piece) {
  const std::uint64_t column = piece % split.column_pieces * split.columns;
  piece /= split.column_pieces;
  const std::uint64_t row = piece % split.row_pieces * split.rows;
  const std::uint64_t entry = piece / split.row_pieces * split.entries;
  return {entry,  std::min<std::uint64_t>(entry + split.entries, gemm.batch),
          row,    std::min<std::uint64_t>(row + split.rows, gemm.m),
          column, std::min<std::uint64_t>(column + split.columns, gemm.n)};
}

Tile tile_of(const Gemm& gemm, const Part& part) {
  const std::uint64_t rows = part.row_end - part.row;
  const Tile whole{part.column_end - part.column, gemm.k};
  const std::uint64_t most_rows = gemm.transpose_b ? kInPlaceRowsTransposed : kInPlaceRows;
  if (!has_in_place_kernels() || gemm.transpose_a || rows == 1 || rows > most_rows) return whole;
  const std::uint64_t most_macs = gemm.transpose_b ? kInPlaceMacsTransposed : kInPlaceMacs;
  const std::uint64_t k = std::min<std::uint64_t>(gemm.k, kInPlaceK);
  std::uint64_t columns = most_macs / (rows * k);
  for (const std::uint64_t step : {64u, 32u, 16u}) {
    if (columns >= step) {
      columns -= columns % step;
      break;
    }
  }
  return {std::min(whole.columns, std::max(columns, kRegisterBlock)), k};
}

}  // namespace shmgemm::compute
