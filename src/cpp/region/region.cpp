#include "region/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "abi/shmgemm_validate.h"

namespace shmgemm::region {
namespace {

std::string mib(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

std::string system_error(const std::string& what) { return what + ": " + std::strerror(errno); }

std::uint64_t read_number(const std::string& path, std::uint64_t otherwise) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  return file >> value ? value : otherwise;
}

std::uint64_t mem_available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  std::uint64_t kib = 0;
  while (file >> key >> kib) {
    std::getline(file, unit);
    if (key == "MemAvailable:") return kib << 10;
  }
  return UINT64_MAX;
}

// What is left in this process's memory cgroup (version 2) and those above it.
std::uint64_t cgroup_left_bytes() {
  std::ifstream file("/proc/self/cgroup");
  std::string line, path;
  while (std::getline(file, line)) {
    if (line.rfind("0::", 0) == 0) path = line.substr(3);
  }
  std::uint64_t left = UINT64_MAX;
  while (!path.empty()) {
    const std::string folder = "/sys/fs/cgroup" + path;
    const std::uint64_t limit = read_number(folder + "/memory.max", UINT64_MAX);
    const std::uint64_t used = read_number(folder + "/memory.current", 0);
    if (limit != UINT64_MAX) left = std::min(left, limit > used ? limit - used : 0);
    if (path == "/") break;
    path = path.substr(0, path.rfind('/'));
    if (path.empty()) path = "/";
  }
  return left;
}

void check_size(std::uint64_t bytes) {
  if (bytes < SHMGEMM_MIN_REGION_BYTES || (bytes & (bytes - 1)) != 0) {
    throw Unsupported("region size " + std::to_string(bytes) +
                      " bytes: expected a power of two, at least 4 MiB");
  }
  const std::uint64_t available = available_memory_bytes();
  if (bytes > available) {
    throw RegionFull("region of " + mib(bytes) + " asked for, but this machine has only " +
                     mib(available) + " of memory left; pass a smaller region=");
  }
}

int create_memory_file(std::uint64_t bytes) {
  const int fd = memfd_create("shmgemm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw Unsupported(system_error("memfd_create"));
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0) {
    const std::string why = system_error("region of " + mib(bytes) + " could not be allocated");
    close(fd);
    throw RegionFull(why);
  }
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    const std::string why = system_error("sealing the region");
    close(fd);
    throw Unsupported(why);
  }
  return fd;
}

std::byte* map(int fd, std::uint64_t bytes) {
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    const std::string why = system_error("mapping a region of " + mib(bytes));
    close(fd);
    throw RegionFull(why);
  }
  return static_cast<std::byte*>(base);
}

void write_header(shmgemm_header* header, std::uint64_t bytes, std::uint32_t queue_pairs) {
  header->abi_major = SHMGEMM_ABI_MAJOR;
  header->abi_minor = SHMGEMM_ABI_MINOR;
  header->header_bytes = sizeof(shmgemm_header);
  header->region_bytes = bytes;
  if (getrandom(header->region_id, sizeof header->region_id, 0) < 0) {
    throw Unsupported(system_error("getrandom"));
  }
  header->queue_pair_count = queue_pairs;
  header->queue_pair_offset = SHMGEMM_PAGE_BYTES;
  header->heap_offset = SHMGEMM_HEAP_ALIGN;
  header->heap_bytes = bytes - SHMGEMM_HEAP_ALIGN;
  header->arena_count = 1;
  header->arenas[0] = {header->heap_offset, header->heap_bytes, 1, 1};
  header->magic = SHMGEMM_MAGIC;
}

}  // namespace

std::uint64_t available_memory_bytes() {
  return std::min(mem_available_bytes(), cgroup_left_bytes());
}

Region::Region(int fd, std::byte* base, std::uint64_t bytes)
    : fd_(fd), base_(base), bytes_(bytes) {}

std::shared_ptr<Region> Region::create(std::uint64_t bytes, std::uint32_t queue_pairs) {
  if (queue_pairs < 1 || queue_pairs > SHMGEMM_MAX_QUEUE_PAIRS) {
    throw Unsupported(std::to_string(queue_pairs) + " queue pairs: expected 1 to " +
                      std::to_string(SHMGEMM_MAX_QUEUE_PAIRS));
  }
  check_size(bytes);
  const int fd = create_memory_file(bytes);
  std::shared_ptr<Region> region(new Region(fd, map(fd, bytes), bytes));
  write_header(&region->written_, bytes, queue_pairs);
  region->restore_header();
  region->heap_begin_ = SHMGEMM_HEAP_ALIGN;
  region->queue_pair_offset_ = SHMGEMM_PAGE_BYTES;
  region->queue_pairs_ = queue_pairs;
  region->id_ = {region->written_.region_id[0], region->written_.region_id[1]};
  return region;
}

std::shared_ptr<Region> Region::attach(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) throw ProtocolError(system_error("region descriptor"));
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (bytes < SHMGEMM_MIN_REGION_BYTES) {
    close(fd);
    throw ProtocolError("region file of " + std::to_string(bytes) +
                        " bytes: at least 4 MiB expected");
  }
  std::shared_ptr<Region> region(new Region(fd, map(fd, bytes), bytes));
  shmgemm_header header;
  std::memcpy(&header, region->base_, sizeof header);
  if (header.magic != SHMGEMM_MAGIC)
    throw ProtocolError("not a shmgemm region: wrong magic number");
  if (header.abi_major != SHMGEMM_ABI_MAJOR) {
    throw ProtocolError("region of ABI version " + std::to_string(header.abi_major) +
                        ", this build speaks " + std::to_string(SHMGEMM_ABI_MAJOR));
  }
  const shmgemm_status valid = shmgemm_validate_header(&header, bytes);
  if (valid != SHMGEMM_STATUS_OK) {
    throw ProtocolError(std::string("region header: ") + shmgemm_status_text(valid));
  }
  region->heap_begin_ = header.heap_offset;
  region->queue_pair_offset_ = header.queue_pair_offset;
  region->queue_pairs_ = header.queue_pair_count;
  region->id_ = {header.region_id[0], header.region_id[1]};
  return region;
}

Region::~Region() {
  munmap(base_, bytes_);
  close(fd_);
}

shmgemm_queue_pair* Region::queue_pair(std::uint32_t index) const {
  return reinterpret_cast<shmgemm_queue_pair*>(base_ + queue_pair_offset_ +
                                               std::uint64_t{index} * SHMGEMM_QUEUE_PAIR_BYTES);
}

std::uint32_t Region::generation() const {
  return __atomic_load_n(&header()->generation, __ATOMIC_SEQ_CST);
}

void Region::begin_generation() {
  for (std::uint32_t i = 0; i < queue_pairs_; ++i) {
    std::memset(static_cast<void*>(queue_pair(i)), 0, sizeof(shmgemm_queue_pair));
  }
  std::memset(static_cast<void*>(engine()), 0, sizeof(shmgemm_peer));
  if (++written_.generation == 0) written_.generation = 1;
  restore_header();
}

// Word by word, because others may ask for generation() meanwhile.
void Region::restore_header() {
  constexpr std::size_t kWords = offsetof(shmgemm_header, peers) / 8;
  std::uint64_t words[kWords];
  std::memcpy(words, &written_, sizeof words);
  auto* to = reinterpret_cast<std::uint64_t*>(base_);
  for (std::size_t i = 0; i < kWords; ++i) __atomic_store_n(to + i, words[i], __ATOMIC_SEQ_CST);
}

}  // namespace shmgemm::region
