// A session's region with the allocator of its arena. Blocks share it, so that the mapping outlives
// the session for as long as a tensor lies in it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "client/session.h"
#include "region/allocator.h"
#include "region/region.h"

namespace shmgemm::client {

class Heap : public std::enable_shared_from_this<Heap> {
 public:
  // A region of its own; `guest_arena_bytes` at its end are for a guest's device server.
  explicit Heap(std::uint64_t region_bytes, std::uint64_t guest_arena_bytes = 0,
                std::uint32_t engines = 1);
  // An arena of somebody else's region, ours until this process ends or lets go. `path`: its file.
  static std::shared_ptr<Heap> lease(const std::string& path);

  region::Region& region() const { return *region_; }
  region::Allocator& allocator() { return allocator_; }
  bool ours() const;  // false in a forked child

  std::shared_ptr<Block> allocate(std::uint64_t bytes);  // null where there is no room
  bool contains(const void* data, std::uint64_t bytes) const;
  std::uint64_t offset_of(const void* data) const;

 private:
  Heap(std::shared_ptr<region::Region> region, region::ArenaLease lease);

  std::shared_ptr<region::Region> region_;
  std::optional<region::ArenaLease> lease_;  // of an arena that is not the region's first
  std::uint64_t begin_, end_;                // of the arena
  region::Allocator allocator_;
  std::uint64_t epoch_;
};

}  // namespace shmgemm::client
