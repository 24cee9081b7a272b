// Who has what of the region's arena for the guest: the device server all but its last sixteenth,
// which is for tools, one at a time (they hold flock() on the device file).
#pragma once

#include "abi/shmgemm_abi.h"

namespace shmgemm::guest {

inline std::uint64_t tools_begin(const shmgemm_arena& arena) {
  const std::uint64_t tools = arena.bytes / 16 / SHMGEMM_PAGE_BYTES * SHMGEMM_PAGE_BYTES;
  return arena.offset + arena.bytes - tools;
}

// The largest arena for a guest; of 0 bytes where the header has none.
inline shmgemm_arena guest_arena(const shmgemm_header& header) {
  shmgemm_arena arena{};
  for (std::uint32_t i = 0; i < header.arena_count; ++i) {
    const shmgemm_arena& each = header.arenas[i];
    if (each.state == SHMGEMM_ARENA_GUEST && each.bytes > arena.bytes) arena = each;
  }
  return arena;
}

}  // namespace shmgemm::guest
