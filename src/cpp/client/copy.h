// Copies between a tensor and its staged block, at memory speed: whole lines, and elements of which
// no two that follow each other in a line are neighbours in memory. The two sides never overlap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shmgemm::client {

// `planes` times `lines` lines of `line_bytes`; steps in bytes.
struct Lines {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  std::uint64_t line_bytes = 0;
  std::uint64_t lines = 1;
  std::int64_t to_step = 0, from_step = 0;
  std::uint64_t planes = 1;
  std::int64_t to_plane = 0, from_plane = 0;
};

void copy_lines(const Lines& lines);

// A matrix whose elements lie row_step and column_step bytes apart, into packed rows. Both ends are
// aligned to an element of 1, 2 or 4 bytes.
struct Elements {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  std::uint32_t element_bytes = 4;
  std::uint64_t rows = 1, columns = 1;
  std::int64_t row_step = 0, column_step = 0;
};

void copy_elements(const Elements& elements);

}  // namespace shmgemm::client
