// The shared region: one file, mapped. A session makes a sealed memory file, owns it and outlives
// engines; an engine attaches by descriptor and checks the header before it trusts an offset in it.
// An engine that is started by hand makes a named file, which outlives it.
//
// Several engines may serve one region, each with queue pairs, peers and a generation of its own:
// there is a header for each, in the first pages, and a Region is what one engine sees. Heap and
// arenas are the same in all of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "abi/shmgemm_abi.h"
#include "region/arena_lease.h"
#include "region/error.h"

namespace shmgemm::region {

class Region {
 public:
  // `bytes`: a power of two from 4 MiB on, of which the heap's last `guest_arena_bytes` are the
  // guest's. `queue_pairs`: of the first engine; each other one has one. `clients` of the first one
  // get a queue pair behind those and an arena each, all equal; the creator's is as large at least.
  // RegionFull where the machine has no room for it.
  static std::shared_ptr<Region> create(std::uint64_t bytes, std::uint32_t queue_pairs,
                                        std::uint64_t guest_arena_bytes = 0,
                                        std::uint32_t engines = 1, std::uint32_t clients = 0);
  // For an engine that no session started: maps the file of that name, made where there is none,
  // with four FREE arenas and one for a guest, and begins a generation. `bytes` 0: as large as the
  // file, or kNamedBytes. Unsupported where another engine serves it.
  static std::shared_ptr<Region> serve_file(const std::string& path, std::uint64_t bytes);
  static constexpr std::uint64_t kNamedBytes = 256ull << 20;
  // Maps what `fd` names, as its engine number `engine` sees it, and takes the descriptor over.
  // ProtocolError for a header that is not ours.
  static std::shared_ptr<Region> attach(int fd, std::uint32_t engine = 0);
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  // Of a region that create() made: as another of its engines sees it. It holds the same mapping.
  Region& of_engine(std::uint32_t engine) { return engine == 0 ? *this : *others_.at(engine - 1); }
  std::uint32_t engine_number() const { return engine_number_; }

  std::byte* base() const { return base_; }
  std::uint64_t bytes() const { return bytes_; }
  int fd() const { return fd_; }
  std::uint64_t heap_begin() const { return heap_begin_; }
  std::uint64_t heap_end() const { return bytes_; }
  std::uint32_t queue_pairs() const { return queue_pairs_; }
  std::array<std::uint64_t, 2> id() const { return id_; }  // random

  shmgemm_header* header() const {
    return reinterpret_cast<shmgemm_header*>(base_ + header_offset(engine_number_));
  }
  shmgemm_peer* engine() const { return &header()->peers[SHMGEMM_ENGINE_PEER]; }
  shmgemm_peer* client(std::uint32_t queue_pair) const { return &header()->peers[1 + queue_pair]; }
  shmgemm_queue_pair* queue_pair(std::uint32_t index) const;

  // As the header said at first. The first of a state; 0 bytes where there is none.
  const std::vector<shmgemm_arena>& arenas() const { return arenas_; }
  shmgemm_arena arena(shmgemm_arena_state state) const;
  // One of that state that nobody else has leased, for as long as the lease lives. RegionFull where
  // there is none.
  ArenaLease lease_arena(shmgemm_arena_state state = SHMGEMM_ARENA_FREE) const;
  // The one kept for whoever gets that queue pair from the engine; 0 bytes where it is no client's.
  shmgemm_arena client_arena(std::uint32_t queue_pair) const;

  std::uint32_t generation() const;
  // While nobody uses it: both rings and the client's line are as in a new region.
  void clear_queue_pair(std::uint32_t index);
  // For who made or serves it, while no other engine runs: empties every ring, writes the header
  // anew, whatever the last engine did to it, and begins the next generation.
  void begin_generation();

 private:
  Region(int fd, std::byte* base, std::uint64_t bytes, std::uint32_t engine = 0);
  Region(const Region& first, std::uint32_t engine);
  static std::uint64_t header_offset(std::uint32_t engine) {
    return std::uint64_t{engine} * SHMGEMM_PAGE_BYTES;
  }
  void use_header(const shmgemm_header& header);
  void restore_header();

  std::shared_ptr<void> mapping_;  // and the descriptor
  int fd_;
  std::byte* base_;
  std::uint64_t bytes_;
  std::uint32_t engine_number_;
  std::vector<std::unique_ptr<Region>> others_;
  std::uint64_t heap_begin_ = 0;  // private copies: the header is shared and may change
  std::uint64_t queue_pair_offset_ = 0;
  std::uint32_t queue_pairs_ = 0;
  std::array<std::uint64_t, 2> id_{};
  std::vector<shmgemm_arena> arenas_;
  shmgemm_header written_{};  // by who may begin a generation
};

// Bytes that a new region may take: MemAvailable, or what the memory cgroup has left if that is
// less.
std::uint64_t available_memory_bytes();

}  // namespace shmgemm::region
