// A session's region with the allocator of its arena. Blocks share it, so that the mapping outlives
// the session for as long as a tensor lies in it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "client/session.h"
#include "region/allocator.h"
#include "region/region.h"

namespace shmgemm::client {

class Heap : public std::enable_shared_from_this<Heap> {
 public:
  // A region of its own for so many engines; `guest_arena_bytes` at its end are for a guest's
  // device server, and `clients` other processes get a queue pair and an arena each.
  explicit Heap(std::uint64_t region_bytes, std::uint64_t guest_arena_bytes = 0,
                std::uint32_t engines = 1, std::uint32_t clients = 0);
  // An arena of somebody else's region, ours until this process ends or lets go. `path`: its file.
  static std::shared_ptr<Heap> lease(const std::string& path);
  // The one that belongs to the queue pair that its engine gave us.
  static std::shared_ptr<Heap> join(std::shared_ptr<region::Region> region,
                                    std::uint32_t queue_pair);

  region::Region& region() const { return *region_; }
  region::Allocator& allocator() { return allocator_; }
  bool ours() const;  // false in a forked child

  std::shared_ptr<Block> allocate(std::uint64_t bytes);  // null where there is no room
  void release(std::uint64_t offset);
  // A leased arena takes no more blocks, and is let go with the last one.
  void retire();
  bool contains(const void* data, std::uint64_t bytes) const;
  std::uint64_t offset_of(const void* data) const;

 private:
  Heap(std::shared_ptr<region::Region> region, region::ArenaLease lease);

  std::shared_ptr<region::Region> region_;
  const bool leased_ = false;                // an arena that is not the region's first
  std::mutex lease_mutex_;                   // of the two that follow
  std::optional<region::ArenaLease> lease_;  // while it is held
  bool retired_ = false;
  std::uint64_t begin_, end_;  // of the arena
  region::Allocator allocator_;
  std::uint64_t epoch_;
};

}  // namespace shmgemm::client
