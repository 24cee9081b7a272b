// From a strided matrix somewhere in memory to what a command can say: an offset, a leading
// dimension, a batch stride and whether it lies transposed. What the region does not hold, or a
// command cannot describe, is staged: copied once into a block of its own, with small gaps between
// its lines as one piece, with large ones line by line.
#pragma once

#include <cstdint>
#include <memory>

#include "client/heap.h"
#include "client/session.h"

namespace shmgemm::client {

struct Operand {
  std::uint64_t offset = 0;
  std::uint64_t end = 0;  // one past the last byte it names
  std::uint64_t batch_stride = 0;
  std::uint32_t leading_dimension = 0;
  bool transposed = false;
  std::shared_ptr<Block> staged;  // null: used in place
  std::uint64_t bytes_copied = 0;

  bool overlaps(const Operand& other) const { return offset < other.end && other.offset < end; }
};

// A matrix of rows x columns, `batch` times, that is only read. RegionFull where it cannot be
// staged.
Operand place_input(Heap& heap, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
                    std::uint32_t columns, std::uint32_t element_bytes);

// The result: in place where the region holds it, else a block to be copied back by fetch_output().
// With `load` (C is accumulated into) its values are staged as well.
Operand place_output(Heap& heap, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
                     std::uint32_t columns, std::uint32_t element_bytes, bool load);
// The same, never in place: for a C that overlaps what the product reads.
Operand stage_output(Heap& heap, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
                     std::uint32_t columns, std::uint32_t element_bytes, bool load);
std::uint64_t fetch_output(const Operand& output, const MatrixView& view, std::uint32_t batch,
                           std::uint32_t rows, std::uint32_t columns, std::uint32_t element_bytes);

// The view's elements as packed rows, and back into a view of column_stride 1.
void pack_rows(void* to, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
               std::uint32_t columns, std::uint32_t element_bytes);
void unpack_rows(const void* from, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
                 std::uint32_t columns, std::uint32_t element_bytes);

// A block, or RegionFull with the numbers a user needs.
std::shared_ptr<Block> allocate_or_throw(Heap& heap, std::uint64_t bytes);

}  // namespace shmgemm::client
