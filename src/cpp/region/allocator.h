// The allocator of one arena: best fit over free extents, blocks counted by reference. It lives in
// the private memory of the arena's owner; the shared memory itself holds no bookkeeping. A block
// that a command names is retained until that command's completion was reaped, whoever else lets go
// of it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

namespace shmgemm::region {

class Allocator {
 public:
  Allocator(std::uint64_t begin, std::uint64_t end);

  // Offset of a new block held once, or 0 where no extent is long enough. Blocks are 64-byte
  // aligned, page-aligned from 1 MiB on.
  std::uint64_t allocate(std::uint64_t bytes);
  void release(std::uint64_t offset);  // of the block's first byte; the last release frees it

  // Holds the block that `offset` lies in once more; false where it lies in none.
  bool retain_containing(std::uint64_t offset, std::uint64_t* first_byte);

  std::uint64_t used_bytes() const;
  std::uint64_t capacity_bytes() const { return end_ - begin_; }
  std::uint64_t largest_free_bytes() const;

 private:
  struct Live {
    std::uint64_t bytes;
    std::uint64_t holders;
  };
  using Extents = std::map<std::uint64_t, std::uint64_t>;  // offset -> bytes

  std::uint64_t take_recent(std::uint64_t bytes);
  std::uint64_t take_best_fit(std::uint64_t bytes, std::uint64_t align);
  void give_back(std::uint64_t offset, std::uint64_t bytes);
  void drop_recent();
  void add_free(std::uint64_t offset, std::uint64_t bytes);
  void remove_free(Extents::iterator extent);

  const std::uint64_t begin_;
  const std::uint64_t end_;
  mutable std::mutex mutex_;
  Extents free_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> free_by_size_;  // (bytes, offset)
  std::map<std::uint64_t, Live> live_;
  // Small blocks freed last, by size in units of 64 bytes: most ops ask for the same sizes again.
  static constexpr std::uint64_t kRecentBytes = 16384;
  static constexpr std::size_t kRecentPerSize = 8;
  std::vector<std::vector<std::uint64_t>> recent_;
  std::uint64_t used_ = 0;
};

}  // namespace shmgemm::region
