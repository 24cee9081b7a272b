// The shared region as the server sees it: mapped, its header checked, and in it the arena that is
// the device server's own, where inline operands are put.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "abi/shmgemm_abi.h"

namespace shmgemm::server {

struct RegionError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class RegionView {
 public:
  // Maps `bytes` of `fd`. RegionError where that is no region, or has no arena for a device server.
  // `lock`: take the lock that keeps two servers of one host out of the same arena.
  RegionView(int fd, std::uint64_t bytes, bool lock);
  ~RegionView();
  RegionView(const RegionView&) = delete;
  RegionView& operator=(const RegionView&) = delete;

  std::byte* at(std::uint64_t offset) const { return base_ + offset; }
  std::uint64_t bytes() const { return bytes_; }
  const std::uint64_t* id() const { return id_; }
  std::uint64_t arena_begin() const { return arena_.offset; }
  std::uint64_t arena_end() const;  // of what the server has of it

 private:
  void read_header();
  void take_lock(int fd);

  std::byte* base_ = nullptr;
  std::uint64_t bytes_;
  std::uint64_t id_[2] = {0, 0};
  shmgemm_arena arena_{};
  int lock_fd_ = -1;
};

std::string region_id_text(const std::uint64_t id[2]);

}  // namespace shmgemm::server
