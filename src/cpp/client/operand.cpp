#include "client/operand.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "client/copy.h"

namespace shmgemm::client {
namespace {

struct Shape {
  std::uint64_t batch, rows, columns, element_bytes;
  std::uint64_t matrix_bytes() const { return rows * columns * element_bytes; }
};

constexpr std::int64_t kMaxLeadingDimension = INT32_MAX;
constexpr std::uint64_t kMostGaps = 4;  // a copy takes them along up to 1 / this of its elements

// Elements from the first to one past the last that the view names.
std::int64_t extent(const MatrixView& view, const Shape& shape) {
  return static_cast<std::int64_t>(shape.batch - 1) * view.batch_stride +
         static_cast<std::int64_t>(shape.rows - 1) * view.row_stride +
         static_cast<std::int64_t>(shape.columns - 1) * view.column_stride + 1;
}

bool is_row_major(std::int64_t row_stride, std::int64_t column_stride, std::uint64_t rows,
                  std::uint64_t columns) {
  return (columns == 1 || column_stride == 1) &&
         (rows == 1 ||
          (row_stride >= static_cast<std::int64_t>(columns) && row_stride <= kMaxLeadingDimension));
}

// Says how the view lies where a command can say it.
bool describe(const MatrixView& view, const Shape& shape, Operand* operand) {
  if (shape.batch > 1 && view.batch_stride < 0) return false;
  const bool straight =
      is_row_major(view.row_stride, view.column_stride, shape.rows, shape.columns);
  const bool transposed =
      !straight && is_row_major(view.column_stride, view.row_stride, shape.columns, shape.rows);
  if (!straight && !transposed) return false;
  const std::uint64_t width = transposed ? shape.rows : shape.columns;
  const std::uint64_t lines = transposed ? shape.columns : shape.rows;
  const std::int64_t stride = transposed ? view.column_stride : view.row_stride;
  operand->transposed = transposed;
  operand->leading_dimension = static_cast<std::uint32_t>(lines == 1 ? width : stride);
  operand->batch_stride = shape.batch > 1 ? static_cast<std::uint64_t>(view.batch_stride) : 0;
  return true;
}

// Says where in the heap the view lies; false where it does not.
bool locate(Heap& heap, const MatrixView& view, const Shape& shape, Operand* operand) {
  const std::int64_t elements = extent(view, shape);
  if (elements <= 0) return false;
  const std::uint64_t bytes = static_cast<std::uint64_t>(elements) * shape.element_bytes;
  if (!heap.contains(view.data, bytes)) return false;
  operand->offset = heap.offset_of(view.data);
  operand->end = operand->offset + bytes;
  return operand->offset % shape.element_bytes == 0;
}

const std::byte* bytes_at(const MatrixView& view) {
  return static_cast<const std::byte*>(view.data);
}

// The view's elements as packed rows.
void pack(std::byte* to, const MatrixView& view, const Shape& shape) {
  const auto bytes = static_cast<std::int64_t>(shape.element_bytes);
  if (view.column_stride == 1 || shape.columns == 1) {
    const std::uint64_t line_bytes = shape.columns * shape.element_bytes;
    copy_lines({to, bytes_at(view), line_bytes, shape.rows, static_cast<std::int64_t>(line_bytes),
                view.row_stride * bytes, shape.batch,
                static_cast<std::int64_t>(shape.matrix_bytes()), view.batch_stride * bytes});
    return;
  }
  const std::byte* from = bytes_at(view);
  for (std::uint64_t i = 0; i < shape.batch; ++i) {
    copy_elements({to, from, static_cast<std::uint32_t>(bytes), shape.rows, shape.columns,
                   view.row_stride * bytes, view.column_stride * bytes});
    to += shape.matrix_bytes();
    from += view.batch_stride * bytes;
  }
}

MatrixView transposed_view(const MatrixView& view) {
  return {view.data, view.batch_stride, view.column_stride, view.row_stride};
}

void hold(Operand* operand, std::shared_ptr<Block> block) {
  operand->staged = std::move(block);
  operand->offset = operand->staged->offset();
  operand->end = operand->offset + operand->staged->bytes();
}

// Gaps and all, as one piece: what a command can describe where it lies it can describe in a copy.
bool stage_extent(Heap& heap, const MatrixView& view, const Shape& shape, Operand* operand) {
  const std::uint64_t copies = view.batch_stride == 0 ? 1 : shape.batch;
  const std::uint64_t packed = copies * shape.matrix_bytes();
  if (!describe(view, shape, operand)) return false;
  const std::uint64_t bytes = static_cast<std::uint64_t>(extent(view, shape)) * shape.element_bytes;
  if (bytes > packed + packed / kMostGaps) return false;
  operand->bytes_copied = bytes;
  hold(operand, allocate_or_throw(heap, bytes));
  copy_lines({static_cast<std::byte*>(operand->staged->data()), bytes_at(view), bytes});
  return true;
}

std::int64_t distance(std::int64_t stride, std::uint64_t count) {
  return count == 1 ? INT64_MAX : std::abs(stride);
}

// Copies the view into a block of its own, in the orientation in which it is read along its memory.
Operand stage(Heap& heap, MatrixView view, Shape shape) {
  Operand operand;
  if (stage_extent(heap, view, shape, &operand)) return operand;
  operand.transposed =
      distance(view.row_stride, shape.rows) < distance(view.column_stride, shape.columns);
  if (operand.transposed) {
    view = transposed_view(view);
    std::swap(shape.rows, shape.columns);
  }
  shape.batch = view.batch_stride == 0 ? 1 : shape.batch;
  operand.leading_dimension = static_cast<std::uint32_t>(shape.columns);
  operand.batch_stride = shape.batch == 1 ? 0 : shape.rows * shape.columns;
  operand.bytes_copied = shape.batch * shape.matrix_bytes();
  hold(&operand, allocate_or_throw(heap, operand.bytes_copied));
  pack(static_cast<std::byte*>(operand.staged->data()), view, shape);
  return operand;
}

}  // namespace

std::shared_ptr<Block> allocate_or_throw(Heap& heap, std::uint64_t bytes) {
  auto block = heap.allocate(bytes);
  if (block != nullptr) return block;
  const region::Allocator& arena = heap.allocator();
  throw RegionFull("no room in the region for " + std::to_string(bytes) +
                   " bytes: " + std::to_string(arena.used_bytes()) + " of " +
                   std::to_string(arena.capacity_bytes()) +
                   " are in use, the longest free run is " +
                   std::to_string(arena.largest_free_bytes()) +
                   "; let go of tensors in it, or open with a larger region=");
}

Operand place_input(Heap& heap, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
                    std::uint32_t columns, std::uint32_t element_bytes) {
  const Shape shape{batch, rows, columns, element_bytes};
  Operand operand;
  if (describe(view, shape, &operand) && locate(heap, view, shape, &operand)) return operand;
  return stage(heap, view, shape);
}

Operand place_output(Heap& heap, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
                     std::uint32_t columns, std::uint32_t element_bytes, bool load) {
  const Shape shape{batch, rows, columns, element_bytes};
  Operand operand;
  if (describe(view, shape, &operand) && !operand.transposed &&
      locate(heap, view, shape, &operand) &&
      (batch == 1 ||
       operand.batch_stride >= (rows - 1) * std::uint64_t{operand.leading_dimension} + columns)) {
    return operand;
  }
  return stage_output(heap, view, batch, rows, columns, element_bytes, load);
}

Operand stage_output(Heap& heap, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
                     std::uint32_t columns, std::uint32_t element_bytes, bool load) {
  const Shape shape{batch, rows, columns, element_bytes};
  Operand operand;
  operand.leading_dimension = columns;
  operand.batch_stride = batch == 1 ? 0 : std::uint64_t{rows} * columns;
  hold(&operand, allocate_or_throw(heap, batch * shape.matrix_bytes()));
  if (load) {
    pack(static_cast<std::byte*>(operand.staged->data()), view, shape);
    operand.bytes_copied = batch * shape.matrix_bytes();
  }
  return operand;
}

std::uint64_t fetch_output(const Operand& output, const MatrixView& view, std::uint32_t batch,
                           std::uint32_t rows, std::uint32_t columns, std::uint32_t element_bytes) {
  if (output.staged == nullptr) return 0;
  unpack_rows(output.staged->data(), view, batch, rows, columns, element_bytes);
  return std::uint64_t{batch} * rows * columns * element_bytes;
}

void pack_rows(void* to, const MatrixView& view, std::uint32_t batch, std::uint32_t rows,
               std::uint32_t columns, std::uint32_t element_bytes) {
  pack(static_cast<std::byte*>(to), view, {batch, rows, columns, element_bytes});
}

void unpack_rows(const void* packed, const MatrixView& view, std::uint32_t batch,
                 std::uint32_t rows, std::uint32_t columns, std::uint32_t element_bytes) {
  const std::int64_t line_bytes = std::int64_t{columns} * element_bytes;
  copy_lines({static_cast<std::byte*>(const_cast<void*>(view.data)),
              static_cast<const std::byte*>(packed), static_cast<std::uint64_t>(line_bytes), rows,
              view.row_stride * element_bytes, line_bytes, batch, view.batch_stride * element_bytes,
              rows * line_bytes});
}

}  // namespace shmgemm::client
