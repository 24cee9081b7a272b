// Arenas: how a heap is divided, and that one belongs to one holder for as long as that lives.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "region/region.h"

namespace {

using namespace shmgemm;
using region::ArenaLease;
using region::Region;

class File {
 public:
  File() {
    char name[] = "/tmp/shmgemm-region-XXXXXX";
    close(mkstemp(name));
    path = name;
  }
  ~File() { unlink(path.c_str()); }
  int open() const { return ::open(path.c_str(), O_RDWR | O_CLOEXEC); }
  std::string path;
};

TEST(Arena, ASessionsGuestArenaIsTheHeapsEnd) {
  const auto region = Region::create(32 << 20, 1, 8 << 20);
  ASSERT_EQ(region->arenas().size(), 2u);
  const shmgemm_arena own = region->arena(SHMGEMM_ARENA_LEASED);
  const shmgemm_arena guest = region->arena(SHMGEMM_ARENA_GUEST);
  EXPECT_EQ(own.offset, region->heap_begin());
  EXPECT_EQ(own.offset + own.bytes, guest.offset);
  EXPECT_EQ(guest.bytes, 8u << 20);
  EXPECT_EQ(guest.offset + guest.bytes, region->bytes());
  EXPECT_EQ(region->arena(SHMGEMM_ARENA_FREE).bytes, 0u);
}

TEST(Arena, GuestArenasThatCannotBe) {
  for (const std::uint64_t bytes : {1u, 100u, 30u << 20, 31u << 20, 1u << 31}) {
    EXPECT_THROW(Region::create(32 << 20, 1, bytes), Unsupported) << bytes;
  }
  EXPECT_NO_THROW(Region::create(32 << 20, 1, (30 << 20) - 4096));
}

TEST(Arena, EachClientHasAnEqualOne) {
  for (const std::uint64_t guest_bytes : {0u, 8u << 20}) {
    for (std::uint32_t clients = 1; clients <= (guest_bytes > 0 ? 6 : 7); ++clients) {
      const auto region = Region::create(32 << 20, 1, guest_bytes, 1, clients);
      EXPECT_EQ(region->queue_pairs(), 1 + clients);
      EXPECT_EQ(region->client_arena(0).bytes, 0u);
      const shmgemm_arena own = region->arena(SHMGEMM_ARENA_LEASED);
      std::uint64_t end = own.offset + own.bytes;
      EXPECT_EQ(own.offset, region->heap_begin());
      for (std::uint32_t i = 1; i <= clients; ++i) {
        const shmgemm_arena arena = region->client_arena(i);
        EXPECT_EQ(arena.offset, end);
        EXPECT_EQ(arena.bytes, region->client_arena(1).bytes);
        EXPECT_LE(arena.bytes, own.bytes);
        end += arena.bytes;
      }
      EXPECT_EQ(end, region->heap_end() - guest_bytes);
      EXPECT_THROW(region->lease_arena(), RegionFull);  // kept for who gets the queue pair
    }
  }
}

TEST(Arena, MoreClientsThanARegionHolds) {
  EXPECT_THROW(Region::create(32 << 20, 1, 0, 1, 8), Unsupported);
  EXPECT_THROW(Region::create(32 << 20, 1, 8 << 20, 1, 7), Unsupported);
  EXPECT_THROW(Region::create(32 << 20, 14, 0, 1, 1), Unsupported);
  EXPECT_THROW(Region::create(32 << 20, 1, (30 << 20) - 4096, 1, 1), Unsupported);
  EXPECT_NO_THROW(Region::create(4 << 20, 1, 0, 1, 7));
}

TEST(Arena, EachIsLeasedOnce) {
  File file;
  const auto server = Region::serve_file(file.path, 32 << 20);
  const auto one = Region::attach(file.open());
  const auto other = Region::attach(file.open());
  std::vector<ArenaLease> leases;
  for (int i = 0; i < 4; ++i) leases.push_back((i % 2 == 0 ? one : other)->lease_arena());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(leases[i].begin(), server->arenas()[i].offset);
    EXPECT_EQ(leases[i].end(), leases[i].begin() + server->arenas()[i].bytes);
  }
  EXPECT_THROW(one->lease_arena(), RegionFull);
  EXPECT_NO_THROW(one->lease_arena(SHMGEMM_ARENA_GUEST));
  EXPECT_THROW(one->lease_arena(SHMGEMM_ARENA_LEASED), RegionFull);
  leases.pop_back();
  EXPECT_TRUE(one->lease_arena().held());
}

TEST(Arena, ALeaseEndsWithItsHolder) {
  File file;
  const auto server = Region::serve_file(file.path, 32 << 20);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto region = Region::attach(file.open());
    std::vector<ArenaLease> leases;
    for (int i = 0; i < 4; ++i) leases.push_back(region->lease_arena());
    (void)!write(ready[1], "x", 1);
    for (;;) pause();
  }
  char byte;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  EXPECT_THROW(server->lease_arena(), RegionFull);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(server->lease_arena().held());
  close(ready[0]);
  close(ready[1]);
}

TEST(NamedRegion, SurvivesAndCountsGenerations) {
  File file;
  std::array<std::uint64_t, 2> id{};
  {
    const auto region = Region::serve_file(file.path, 32 << 20);
    EXPECT_EQ(region->generation(), 1u);
    id = region->id();
    std::memset(region->base() + region->heap_begin(), 7, 100);
    EXPECT_THROW(Region::serve_file(file.path, 0), Unsupported);  // one engine at a time
  }
  const auto region = Region::serve_file(file.path, 0);
  EXPECT_EQ(region->generation(), 2u);
  EXPECT_EQ(region->id(), id);
  EXPECT_EQ(region->bytes(), 32u << 20);
  EXPECT_EQ(static_cast<int>(region->base()[region->heap_begin() + 99]), 7);
  EXPECT_EQ(region->arenas().size(), 5u);
}

TEST(NamedRegion, OfAnotherSizeOrContentIsRefused) {
  File file;
  {
    const auto region = Region::serve_file(file.path, 8 << 20);
  }
  EXPECT_THROW(Region::serve_file(file.path, 16 << 20), Unsupported);
  {
    const auto region = Region::serve_file(file.path, 8 << 20);
    region->header()->magic = 5;
  }
  EXPECT_THROW(Region::serve_file(file.path, 0), ProtocolError);
  ASSERT_EQ(truncate(file.path.c_str(), 5 << 20), 0);
  EXPECT_THROW(Region::serve_file(file.path, 0), Unsupported);
}

TEST(NamedRegion, ASmallOneHasASmallGuestArena) {
  File file;
  const auto region = Region::serve_file(file.path, 4 << 20);
  EXPECT_EQ(region->arena(SHMGEMM_ARENA_GUEST).bytes, 512u << 10);
}

}  // namespace
