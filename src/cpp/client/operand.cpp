#include "client/operand.h"

#include <cstdlib>
#include <cstring>
#include <string>

namespace shmgemm::client {
namespace {

struct Shape {
  std::uint64_t batch, rows, columns, element_bytes;
  std::uint64_t matrix_bytes() const { return rows * columns * element_bytes; }
};

constexpr std::int64_t kMaxLeadingDimension = INT32_MAX;

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

template <class Element>
void gather_elements(std::byte* to, const MatrixView& view, const Shape& shape) {
  auto* out = reinterpret_cast<Element*>(to);
  const auto* in = static_cast<const Element*>(view.data);
  for (std::uint64_t row = 0; row < shape.rows; ++row) {
    const Element* line = in + static_cast<std::int64_t>(row) * view.row_stride;
    for (std::uint64_t column = 0; column < shape.columns; ++column) {
      *out++ = line[static_cast<std::int64_t>(column) * view.column_stride];
    }
  }
}

// One matrix into packed rows.
void pack(std::byte* to, const MatrixView& view, const Shape& shape) {
  if (view.column_stride != 1 && shape.columns > 1) {
    switch (shape.element_bytes) {
      case 1:
        return gather_elements<std::uint8_t>(to, view, shape);
      case 2:
        return gather_elements<std::uint16_t>(to, view, shape);
      default:
        return gather_elements<std::uint32_t>(to, view, shape);
    }
  }
  const auto* from = static_cast<const std::byte*>(view.data);
  const std::uint64_t line_bytes = shape.columns * shape.element_bytes;
  if (view.row_stride == static_cast<std::int64_t>(shape.columns) || shape.rows == 1) {
    std::memcpy(to, from, shape.rows * line_bytes);
    return;
  }
  const std::int64_t step = view.row_stride * static_cast<std::int64_t>(shape.element_bytes);
  for (std::uint64_t row = 0; row < shape.rows; ++row, from += step, to += line_bytes) {
    std::memcpy(to, from, line_bytes);
  }
}

const void* batch_entry(const MatrixView& view, std::uint64_t index, const Shape& shape) {
  return static_cast<const std::byte*>(view.data) +
         static_cast<std::int64_t>(index) * view.batch_stride *
             static_cast<std::int64_t>(shape.element_bytes);
}

MatrixView transposed_view(const MatrixView& view) {
  return {view.data, view.batch_stride, view.column_stride, view.row_stride};
}

void pack_batch(std::byte* to, const MatrixView& view, const Shape& shape) {
  for (std::uint64_t i = 0; i < shape.batch; ++i, to += shape.matrix_bytes()) {
    MatrixView entry = view;
    entry.data = batch_entry(view, i, shape);
    pack(to, entry, shape);
  }
}

// Packs the view into a block of its own, in the orientation in which whole lines can be copied.
Operand stage(Heap& heap, MatrixView view, Shape shape) {
  Operand operand;
  operand.transposed = view.column_stride != 1 && shape.columns > 1 && view.row_stride == 1;
  if (operand.transposed) {
    view = transposed_view(view);
    std::swap(shape.rows, shape.columns);
  }
  const std::uint64_t copies = view.batch_stride == 0 ? 1 : shape.batch;
  operand.leading_dimension = static_cast<std::uint32_t>(shape.columns);
  operand.batch_stride = copies == 1 ? 0 : shape.rows * shape.columns;
  operand.bytes_copied = copies * shape.matrix_bytes();
  operand.staged = allocate_or_throw(heap, operand.bytes_copied);
  operand.offset = operand.staged->offset();
  operand.end = operand.offset + operand.staged->bytes();
  shape.batch = copies;
  pack_batch(static_cast<std::byte*>(operand.staged->data()), view, shape);
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
  operand.staged = allocate_or_throw(heap, batch * shape.matrix_bytes());
  operand.offset = operand.staged->offset();
  operand.end = operand.offset + operand.staged->bytes();
  if (load) {
    pack_batch(static_cast<std::byte*>(operand.staged->data()), view, shape);
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
  pack_batch(static_cast<std::byte*>(to), view, {batch, rows, columns, element_bytes});
}

void unpack_rows(const void* packed, const MatrixView& view, std::uint32_t batch,
                 std::uint32_t rows, std::uint32_t columns, std::uint32_t element_bytes) {
  const Shape shape{batch, rows, columns, element_bytes};
  const std::uint64_t line_bytes = shape.columns * element_bytes;
  const auto* from = static_cast<const std::byte*>(packed);
  for (std::uint64_t i = 0; i < batch; ++i) {
    auto* to = static_cast<std::byte*>(const_cast<void*>(batch_entry(view, i, shape)));
    if (view.row_stride == static_cast<std::int64_t>(columns)) {
      std::memcpy(to, from, shape.matrix_bytes());
      from += shape.matrix_bytes();
      continue;
    }
    for (std::uint64_t row = 0; row < rows; ++row, from += line_bytes) {
      std::memcpy(to + static_cast<std::int64_t>(row) * view.row_stride * element_bytes, from,
                  line_bytes);
    }
  }
}

}  // namespace shmgemm::client
