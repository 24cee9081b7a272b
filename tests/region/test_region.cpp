// The region: what it refuses to be, what it refuses to attach to, and that its size is sealed.
#include "region/region.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <stdexcept>
#include <string>

namespace {

using shmgemm::ProtocolError;
using shmgemm::RegionFull;
using shmgemm::Unsupported;
using shmgemm::region::Region;

constexpr std::uint64_t kBytes = 4 << 20;

template <class Function>
std::string message_of(Function&& function) {
  try {
    function();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

TEST(Region, LaysOutItsHeader) {
  const auto region = Region::create(kBytes, 3);
  const shmgemm_header* header = region->header();
  EXPECT_EQ(header->magic, SHMGEMM_MAGIC);
  EXPECT_EQ(0, std::memcmp(header, "SHMGEMM1", 8));
  EXPECT_EQ(header->region_bytes, kBytes);
  EXPECT_EQ(header->queue_pair_count, 3u);
  EXPECT_EQ(region->heap_begin() % SHMGEMM_HEAP_ALIGN, 0u);
  EXPECT_EQ(region->heap_end(), kBytes);
  EXPECT_NE(header->region_id[0], 0u);
}

TEST(Region, RefusesOddSizes) {
  for (const std::uint64_t bytes :
       {std::uint64_t{0}, std::uint64_t{4096}, kBytes / 2, kBytes + 1, 3 * kBytes}) {
    const std::string message = message_of([&] { Region::create(bytes, 1); });
    EXPECT_NE(message.find(std::to_string(bytes)), std::string::npos) << message;
    EXPECT_NE(message.find("power of two"), std::string::npos) << message;
    EXPECT_THROW(Region::create(bytes, 1), Unsupported);
  }
}

TEST(Region, RefusesMoreThanTheMachineHas) {
  EXPECT_THROW(Region::create(1ull << 50, 1), RegionFull);
  const std::string message = message_of([] { Region::create(1ull << 50, 1); });
  EXPECT_NE(message.find("1073741824 MiB"), std::string::npos) << message;
}

TEST(Region, RefusesTooManyQueuePairs) {
  EXPECT_THROW(Region::create(kBytes, 0), Unsupported);
  EXPECT_THROW(Region::create(kBytes, SHMGEMM_MAX_QUEUE_PAIRS + 1), Unsupported);
}

TEST(Region, SharesMemoryWithWhoeverAttaches) {
  const auto owner = Region::create(kBytes, 1);
  const auto other = Region::attach(fcntl(owner->fd(), F_DUPFD_CLOEXEC, 3));
  owner->base()[owner->heap_begin() + 5] = std::byte{42};
  EXPECT_EQ(other->base()[other->heap_begin() + 5], std::byte{42});
  owner->begin_generation();
  EXPECT_EQ(other->generation(), 1u);
}

TEST(Region, SizeIsSealed) {
  const auto region = Region::create(kBytes, 1);
  EXPECT_NE(ftruncate(region->fd(), kBytes / 2), 0);
  EXPECT_NE(ftruncate(region->fd(), kBytes * 2), 0);
}

TEST(Region, ANewGenerationEmptiesTheRings) {
  const auto region = Region::create(kBytes, 2);
  region->queue_pair(1)->commands[7].seq = 9;
  region->engine()->state = SHMGEMM_PEER_READY;
  region->begin_generation();
  EXPECT_EQ(region->queue_pair(1)->commands[7].seq, 0u);
  EXPECT_EQ(region->engine()->state, std::uint32_t{SHMGEMM_PEER_NONE});
}

int file_of(std::uint64_t bytes) {
  const int fd = memfd_create("test", MFD_CLOEXEC);
  EXPECT_EQ(ftruncate(fd, static_cast<off_t>(bytes)), 0);
  return fd;
}

TEST(Region, RefusesForeignFiles) {
  EXPECT_THROW(Region::attach(file_of(kBytes)), ProtocolError);
  EXPECT_THROW(Region::attach(file_of(4096)), ProtocolError);
  EXPECT_THROW(Region::attach(-1), ProtocolError);
}

TEST(Region, RefusesABrokenOrForeignHeader) {
  const auto owner = Region::create(kBytes, 1);
  const shmgemm_header good = *owner->header();
  const auto attach = [&] { Region::attach(fcntl(owner->fd(), F_DUPFD_CLOEXEC, 3)); };
  owner->header()->abi_major = 99;
  EXPECT_NE(message_of(attach).find("ABI version 99"), std::string::npos) << message_of(attach);
  *owner->header() = good;
  owner->header()->heap_offset = kBytes;
  EXPECT_THROW(attach(), ProtocolError);
  *owner->header() = good;
  owner->header()->queue_pair_count = 1000;
  EXPECT_THROW(attach(), ProtocolError);
  *owner->header() = good;
  EXPECT_NO_THROW(attach());
}

TEST(Region, SeveralEnginesHaveHeadersAndRingsOfTheirOwn) {
  const auto region = Region::create(kBytes, SHMGEMM_MAX_QUEUE_PAIRS, 0, SHMGEMM_MAX_ENGINES);
  std::set<const void*> rings;
  for (std::uint32_t i = 0; i < SHMGEMM_MAX_ENGINES; ++i) {
    Region& here = region->of_engine(i);
    EXPECT_EQ(here.base(), region->base());
    EXPECT_EQ(here.heap_begin(), region->heap_begin());
    EXPECT_EQ(here.id(), region->id());
    const auto engine = Region::attach(fcntl(region->fd(), F_DUPFD_CLOEXEC, 3), i);
    EXPECT_EQ(engine->engine_number(), i);
    EXPECT_EQ(engine->id(), region->id());
    EXPECT_EQ(engine->queue_pairs(), i == 0 ? SHMGEMM_MAX_QUEUE_PAIRS : 1);
    for (std::uint32_t pair = 0; pair < here.queue_pairs(); ++pair) {
      rings.insert(here.queue_pair(pair));
      const auto* begin = reinterpret_cast<const std::byte*>(here.queue_pair(pair));
      EXPECT_GE(begin, here.base() + SHMGEMM_MAX_ENGINES * SHMGEMM_PAGE_BYTES);
      EXPECT_LE(begin + SHMGEMM_QUEUE_PAIR_BYTES, here.base() + here.heap_begin());
      EXPECT_EQ(begin - here.base(),
                reinterpret_cast<const std::byte*>(engine->queue_pair(pair)) - engine->base());
    }
  }
  EXPECT_EQ(rings.size(), SHMGEMM_MAX_QUEUE_PAIRS + SHMGEMM_MAX_ENGINES - 1);
}

TEST(Region, AGenerationOfOneEngineLeavesTheOthersAlone) {
  const auto region = Region::create(kBytes, 1, 0, 3);
  for (std::uint32_t i = 0; i < 3; ++i) {
    region->of_engine(i).queue_pair(0)->commands[3].seq = 9;
    region->of_engine(i).engine()->state = SHMGEMM_PEER_READY;
  }
  region->of_engine(1).header()->magic = 5;  // whatever its engine did to it
  region->of_engine(1).begin_generation();
  const auto engine = Region::attach(fcntl(region->fd(), F_DUPFD_CLOEXEC, 3), 1);
  EXPECT_EQ(engine->generation(), 1u);
  EXPECT_EQ(engine->queue_pair(0)->commands[3].seq, 0u);
  for (const std::uint32_t other : {0u, 2u}) {
    EXPECT_EQ(region->of_engine(other).generation(), 0u);
    EXPECT_EQ(region->of_engine(other).queue_pair(0)->commands[3].seq, 9u);
    EXPECT_EQ(region->of_engine(other).engine()->state, std::uint32_t{SHMGEMM_PEER_READY});
  }
}

TEST(Region, RefusesEnginesThatItDoesNotHave) {
  EXPECT_THROW(Region::create(kBytes, 1, 0, 0), Unsupported);
  EXPECT_NE(message_of([] { Region::create(kBytes, 1, 0, 9); }).find("1 to 8"), std::string::npos);
  const auto region = Region::create(kBytes, 1, 0, 2);
  for (const std::uint32_t engine : {2u, 7u, 8u, 4000u}) {
    EXPECT_THROW(Region::attach(fcntl(region->fd(), F_DUPFD_CLOEXEC, 3), engine), ProtocolError);
  }
  EXPECT_THROW(region->of_engine(2), std::out_of_range);
}

}  // namespace
