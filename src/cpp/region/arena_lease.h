// The right to allocate in one arena of a region that someone else made: an open-file-description
// lock on the byte at the arena's offset, which the kernel lets go when its holder dies.
#pragma once

#include <cstdint>

#include "abi/shmgemm_abi.h"

namespace shmgemm::region {

class ArenaLease {
 public:
  // Tries to lock the arena of the file that `region_fd` names, by a description of its own.
  ArenaLease(int region_fd, const shmgemm_arena& arena);
  ArenaLease(ArenaLease&& other) noexcept;
  ~ArenaLease();
  ArenaLease& operator=(const ArenaLease&) = delete;

  static bool is_held(int region_fd, const shmgemm_arena& arena);  // by anybody

  bool held() const { return fd_ >= 0; }
  std::uint64_t begin() const { return begin_; }  // of its bytes, from byte 0 of the region
  std::uint64_t end() const { return end_; }

 private:
  int fd_ = -1;
  std::uint64_t begin_;
  std::uint64_t end_;
};

}  // namespace shmgemm::region
