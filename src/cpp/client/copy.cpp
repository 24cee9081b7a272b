// What is copied here the engine reads next, from another core. Measured with the product that
// follows (docs/performance.md), a copy past the caches loses up to where the whole operand fits
// into them, and a second thread loses where waking it takes as long as its half.
#include "client/copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "client/copy_helper.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace shmgemm::client {
namespace {

constexpr std::uint64_t kShareBytes = 8u << 20;       // from here on by two threads
constexpr std::uint64_t kStreamBytes = 32u << 20;     // from here on past the caches
constexpr std::uint64_t kStreamLineBytes = 1024;      // shorter lines are mostly heads and tails
constexpr std::uint64_t kPieceBytes = 512u << 10;     // of a shared copy
constexpr std::uint64_t kShareElements = 256u << 10;  // slower each than a line's bytes
// Read across its memory, a tile takes whole cache lines, few enough for one set of any L1.
constexpr std::uint64_t kTileRows = 16, kTileColumns = 8;

using CopyLine = void (*)(std::byte* to, const std::byte* from, std::uint64_t bytes);

void through_caches(std::byte* to, const std::byte* from, std::uint64_t bytes) {
  std::memcpy(to, from, bytes);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void past_caches(std::byte* to, const std::byte* from,
                                                 std::uint64_t bytes) {
  constexpr std::uint64_t kStep = 4 * sizeof(__m256i);
  const std::uint64_t to_line = -reinterpret_cast<std::uintptr_t>(to) % 64;
  std::uint64_t at = std::min(to_line, bytes);
  std::memcpy(to, from, at);
  for (; at + kStep <= bytes; at += kStep) {
    const auto* const in = reinterpret_cast<const __m256i*>(from + at);
    auto* const out = reinterpret_cast<__m256i*>(to + at);
    const __m256i parts[4] = {_mm256_loadu_si256(in), _mm256_loadu_si256(in + 1),
                              _mm256_loadu_si256(in + 2), _mm256_loadu_si256(in + 3)};
    for (int i = 0; i < 4; ++i) _mm256_stream_si256(out + i, parts[i]);
  }
  std::memcpy(to + at, from + at, bytes - at);
  _mm_sfence();
}

CopyLine best_past_caches() {
  return __builtin_cpu_supports("avx2") ? past_caches : through_caches;
}
#else
CopyLine best_past_caches() { return through_caches; }
#endif

struct Copy {
  Lines lines;
  CopyLine copy_line;
  std::uint64_t lines_each;  // of a piece

  std::uint64_t count() const { return lines.lines * lines.planes; }
  std::uint64_t pieces() const { return (count() + lines_each - 1) / lines_each; }
};

void copy_piece(void* context, std::uint64_t index) {
  const Copy& copy = *static_cast<const Copy*>(context);
  const Lines& all = copy.lines;
  const std::uint64_t begin = index * copy.lines_each;
  const std::uint64_t end = std::min(copy.count(), begin + copy.lines_each);
  auto plane = static_cast<std::int64_t>(begin / all.lines);
  auto line = static_cast<std::int64_t>(begin % all.lines);
  for (std::uint64_t i = begin; i < end; ++i) {
    copy.copy_line(all.to + plane * all.to_plane + line * all.to_step,
                   all.from + plane * all.from_plane + line * all.from_step, all.line_bytes);
    if (++line == static_cast<std::int64_t>(all.lines)) {
      line = 0;
      ++plane;
    }
  }
}

// Planes that go on where the one before ends, and lines likewise, as one.
Lines joined(Lines all) {
  const auto lines = static_cast<std::int64_t>(all.lines);
  if (all.planes > 1 && all.to_plane == lines * all.to_step &&
      all.from_plane == lines * all.from_step) {
    all.lines *= all.planes;
    all.planes = 1;
  }
  const auto dense = static_cast<std::int64_t>(all.line_bytes);
  if (all.to_step == dense && all.from_step == dense) {
    all.line_bytes *= all.lines;
    all.lines = 1;
  }
  return all;
}

// One long line as lines of a piece each; what they leave over is copied at once.
void cut(Copy* copy) {
  Lines& all = copy->lines;
  const std::uint64_t rest = all.line_bytes % kPieceBytes;
  const std::uint64_t whole = all.line_bytes - rest;
  copy->copy_line(all.to + whole, all.from + whole, rest);
  all.lines = whole / kPieceBytes;
  all.line_bytes = kPieceBytes;
  all.to_step = all.from_step = static_cast<std::int64_t>(kPieceBytes);
}

template <class Element>
void copy_tile(Element* to, const std::byte* from, const Elements& all, std::uint64_t rows,
               std::uint64_t columns) {
  for (std::uint64_t row = 0; row < rows; ++row, to += all.columns, from += all.row_step) {
    const std::byte* at = from;
    for (std::uint64_t column = 0; column < columns; ++column, at += all.column_step) {
      to[column] = *reinterpret_cast<const Element*>(at);
    }
  }
}

// Rows from `row` on, as many as a tile has.
template <class Element>
void copy_tiles(void* context, std::uint64_t index) {
  const Elements& all = *static_cast<const Elements*>(context);
  const std::uint64_t row = index * kTileRows;
  const std::uint64_t rows = std::min(kTileRows, all.rows - row);
  const std::byte* const from = all.from + static_cast<std::int64_t>(row) * all.row_step;
  auto* const to = reinterpret_cast<Element*>(all.to) + row * all.columns;
  const bool along_rows = std::abs(all.column_step) <= std::abs(all.row_step);
  if (along_rows) return copy_tile(to, from, all, rows, all.columns);
  for (std::uint64_t column = 0; column < all.columns; column += kTileColumns) {
    copy_tile(to + column, from + static_cast<std::int64_t>(column) * all.column_step, all, rows,
              std::min(kTileColumns, all.columns - column));
  }
}

template <class Element>
void copy_all_tiles(Elements all) {
  const std::uint64_t tiles = (all.rows + kTileRows - 1) / kTileRows;
  if (all.rows * all.columns >= kShareElements) {
    return share_pieces(tiles, copy_tiles<Element>, &all);
  }
  for (std::uint64_t tile = 0; tile < tiles; ++tile) copy_tiles<Element>(&all, tile);
}

}  // namespace

void copy_lines(const Lines& lines) {
  Copy copy{joined(lines), through_caches, 1};
  const std::uint64_t bytes = copy.count() * copy.lines.line_bytes;
  if (bytes >= kStreamBytes && copy.lines.line_bytes >= kStreamLineBytes) {
    copy.copy_line = best_past_caches();
  }
  if (bytes < kShareBytes) {
    copy.lines_each = copy.count();
    return copy_piece(&copy, 0);
  }
  if (copy.count() == 1) cut(&copy);
  copy.lines_each = std::max<std::uint64_t>(1, kPieceBytes / copy.lines.line_bytes);
  share_pieces(copy.pieces(), copy_piece, &copy);
}

void copy_elements(const Elements& elements) {
  switch (elements.element_bytes) {
    case 1:
      return copy_all_tiles<std::uint8_t>(elements);
    case 2:
      return copy_all_tiles<std::uint16_t>(elements);
    default:
      return copy_all_tiles<std::uint32_t>(elements);
  }
}

}  // namespace shmgemm::client
