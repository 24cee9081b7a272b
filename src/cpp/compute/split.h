// How one product is cut up: by its shape alone, never by the number of threads, so that the bits
// do not depend on threads. Pieces are what threads share out; tiles are the calls of OpenBLAS
// within a piece.
#pragma once

#include <cstdint>

#include "compute/gemm.h"

namespace shmgemm::compute {

struct Split {
  std::uint64_t rows = 0, columns = 0, entries = 0;  // of a piece: of C, of C, of the batch
  std::uint64_t row_pieces = 1, column_pieces = 1, entry_pieces = 1;
  std::uint64_t pieces() const { return row_pieces * column_pieces * entry_pieces; }
};

struct Tile {
  std::uint64_t columns = 0;
  std::uint64_t k = 0;
};

// A part of C: rows [row, row_end) and columns [column, column_end) of batch entries [entry,
// entry_end).
struct Part {
  std::uint64_t entry, entry_end, row, row_end, column, column_end;
};

Split split_of(const Gemm& gemm);
Part part_of(const Gemm& gemm, const Split& split, std::uint64_t piece);
Tile tile_of(const Gemm& gemm, const Part& part);

}  // namespace shmgemm::compute
