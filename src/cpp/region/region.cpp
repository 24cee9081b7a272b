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

constexpr char kLegalSize[] = "a power of two, at least 4 MiB,";
constexpr std::uint32_t kNamedArenas = 4;
constexpr std::uint64_t kNamedGuestBytes = 16ull << 20;  // a quarter of the heap at most
constexpr std::uint64_t kMinArenaBytes = 64 << 10;       // of a session or its clients

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

bool is_legal_size(std::uint64_t bytes) {
  return bytes >= SHMGEMM_MIN_REGION_BYTES && (bytes & (bytes - 1)) == 0;
}

void check_size(std::uint64_t bytes) {
  if (!is_legal_size(bytes)) {
    throw Unsupported("region size " + std::to_string(bytes) + " bytes: " + kLegalSize +
                      " expected");
  }
  const std::uint64_t available = available_memory_bytes();
  if (bytes > available) {
    throw RegionFull("region of " + mib(bytes) + " asked for, but this machine has only " +
                     mib(available) + " of memory left; pass a smaller region=");
  }
}

// Every page is there, so that no access can fail later.
std::uint64_t make_room(int fd, const std::string& path, std::uint64_t bytes) {
  check_size(bytes);
  if (ftruncate(fd, static_cast<off_t>(bytes)) == 0 &&
      fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0) {
    return bytes;
  }
  const std::string why = system_error("region file " + path + ": no room for " + mib(bytes));
  (void)!ftruncate(fd, 0);
  throw RegionFull(why);
}

void check_guest_arena(std::uint64_t guest_bytes, std::uint64_t region_bytes) {
  const std::uint64_t heap_bytes = region_bytes - SHMGEMM_HEAP_ALIGN;
  if (guest_bytes % SHMGEMM_PAGE_BYTES == 0 && guest_bytes < heap_bytes) return;
  throw Unsupported("guest arena of " + std::to_string(guest_bytes) +
                    " bytes: expected a multiple of 4096 below the heap's " +
                    std::to_string(heap_bytes) + " bytes");
}

// Every client needs a queue pair and an arena.
void check_clients(std::uint32_t clients, std::uint32_t queue_pairs, std::uint64_t guest_bytes,
                   std::uint64_t region_bytes) {
  const std::uint32_t arenas_left = SHMGEMM_MAX_ARENAS - 1 - (guest_bytes > 0 ? 1 : 0);
  const std::uint32_t most = std::min(SHMGEMM_MAX_QUEUE_PAIRS - queue_pairs, arenas_left);
  if (clients > most) {
    throw Unsupported(std::to_string(clients) + " clients: a region has room for at most " +
                      std::to_string(most) + (guest_bytes > 0 ? " beside a guest" : ""));
  }
  const std::uint64_t share = (region_bytes - SHMGEMM_HEAP_ALIGN - guest_bytes) / (clients + 1);
  if (clients > 0 && share < kMinArenaBytes) {
    throw Unsupported(std::to_string(clients) + " clients: each would get " +
                      std::to_string(share) + " bytes of the region, at least " +
                      std::to_string(kMinArenaBytes) + " expected; pass a larger region=");
  }
}

struct NamedFile {
  int fd;
  std::uint64_t bytes;
};

// Opens or makes it, locked against other engines. A file of zeros was made by whoever came first
// and needs it as large as it is.
NamedFile open_named_file(const std::string& path, std::uint64_t wanted) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) throw Unsupported(system_error("region file " + path));
  try {
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_len = 1;
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
      throw Unsupported("region file " + path + ": another engine serves it");
    }
    struct stat status{};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
      throw Unsupported("region file " + path + ": no regular file");
    }
    const auto bytes = static_cast<std::uint64_t>(status.st_size);
    if (bytes == 0) return {fd, make_room(fd, path, wanted == 0 ? Region::kNamedBytes : wanted)};
    if ((wanted != 0 && bytes != wanted) || !is_legal_size(bytes)) {
      throw Unsupported("region file " + path + " has " + std::to_string(bytes) + " bytes: " +
                        (wanted != 0 ? std::to_string(wanted) : kLegalSize) + " expected");
    }
    return {fd, bytes};
  } catch (...) {
    close(fd);
    throw;
  }
}

// No header was ever written there.
bool is_zero(const std::byte* base) {
  return std::all_of(base, base + SHMGEMM_PAGE_BYTES,
                     [](std::byte value) { return value == std::byte{0}; });
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

shmgemm_header new_header(std::uint64_t bytes, std::uint32_t queue_pairs) {
  shmgemm_header header{};
  header.abi_major = SHMGEMM_ABI_MAJOR;
  header.abi_minor = SHMGEMM_ABI_MINOR;
  header.header_bytes = sizeof header;
  header.region_bytes = bytes;
  if (getrandom(header.region_id, sizeof header.region_id, 0) < 0) {
    throw Unsupported(system_error("getrandom"));
  }
  header.queue_pair_count = queue_pairs;
  header.queue_pair_offset = SHMGEMM_PAGE_BYTES;
  header.heap_offset = SHMGEMM_HEAP_ALIGN;
  header.heap_bytes = bytes - SHMGEMM_HEAP_ALIGN;
  header.magic = SHMGEMM_MAGIC;
  return header;
}

void add_guest_arena(shmgemm_header& header, std::uint64_t bytes) {
  if (bytes == 0) return;
  const std::uint64_t end = header.heap_offset + header.heap_bytes;
  header.arenas[header.arena_count++] = {end - bytes, bytes, 0, SHMGEMM_ARENA_GUEST};
}

std::uint64_t share_of(std::uint64_t bytes, std::uint32_t count) {
  return bytes / count / SHMGEMM_PAGE_BYTES * SHMGEMM_PAGE_BYTES;
}

// `count` equal arenas for whoever comes, then one for a guest where it has bytes.
void divide_heap(shmgemm_header& header, std::uint32_t count, std::uint64_t guest_bytes) {
  const std::uint64_t share = share_of(header.heap_bytes - guest_bytes, count);
  for (std::uint32_t i = 0; i < count; ++i) {
    header.arenas[i] = {header.heap_offset + i * share, share, 0, SHMGEMM_ARENA_FREE};
  }
  header.arena_count = count;
  add_guest_arena(header, guest_bytes);
}

// The creator's, with what does not divide; then one for the client of each queue pair from
// `first` on.
void divide_among_clients(shmgemm_header& header, std::uint32_t first, std::uint64_t guest_bytes) {
  const std::uint32_t clients = header.queue_pair_count - first;
  const std::uint64_t bytes = header.heap_bytes - guest_bytes;
  const std::uint64_t share = share_of(bytes, clients + 1);
  std::uint64_t offset = header.heap_offset + bytes - clients * share;
  header.arenas[0] = {header.heap_offset, offset - header.heap_offset, 1, SHMGEMM_ARENA_LEASED};
  for (std::uint32_t i = 0; i < clients; ++i, offset += share) {
    header.arenas[1 + i] = {offset, share, 1 + first + i, SHMGEMM_ARENA_FREE};
  }
  header.arena_count = 1 + clients;
  add_guest_arena(header, guest_bytes);
}

shmgemm_header checked_header(const std::byte* at, std::uint64_t bytes) {
  shmgemm_header header;
  std::memcpy(&header, at, sizeof header);
  if (header.magic != SHMGEMM_MAGIC) {
    throw ProtocolError("not a shmgemm region: wrong magic number");
  }
  if (header.abi_major != SHMGEMM_ABI_MAJOR) {
    throw ProtocolError("region of ABI version " + std::to_string(header.abi_major) +
                        ", this build speaks " + std::to_string(SHMGEMM_ABI_MAJOR));
  }
  const shmgemm_status valid = shmgemm_validate_header(&header, bytes);
  if (valid != SHMGEMM_STATUS_OK) {
    throw ProtocolError(std::string("region header: ") + shmgemm_status_text(valid));
  }
  return header;
}

}  // namespace

std::uint64_t available_memory_bytes() {
  return std::min(mem_available_bytes(), cgroup_left_bytes());
}

Region::Region(int fd, std::byte* base, std::uint64_t bytes, std::uint32_t engine)
    : mapping_(base,
               [fd, bytes](void* mapped) {
                 munmap(mapped, bytes);
                 close(fd);
               }),
      fd_(fd),
      base_(base),
      bytes_(bytes),
      engine_number_(engine) {}

Region::Region(const Region& first, std::uint32_t engine)
    : mapping_(first.mapping_),
      fd_(first.fd_),
      base_(first.base_),
      bytes_(first.bytes_),
      engine_number_(engine) {}

std::shared_ptr<Region> Region::create(std::uint64_t bytes, std::uint32_t queue_pairs,
                                       std::uint64_t guest_arena_bytes, std::uint32_t engines,
                                       std::uint32_t clients) {
  if (engines < 1 || engines > SHMGEMM_MAX_ENGINES) {
    throw Unsupported(std::to_string(engines) + " engines: expected 1 to " +
                      std::to_string(SHMGEMM_MAX_ENGINES));
  }
  if (queue_pairs < 1 || queue_pairs > SHMGEMM_MAX_QUEUE_PAIRS) {
    throw Unsupported(std::to_string(queue_pairs) + " queue pairs: expected 1 to " +
                      std::to_string(SHMGEMM_MAX_QUEUE_PAIRS));
  }
  check_size(bytes);
  check_guest_arena(guest_arena_bytes, bytes);
  check_clients(clients, queue_pairs, guest_arena_bytes, bytes);
  const int fd = create_memory_file(bytes);
  std::shared_ptr<Region> region(new Region(fd, map(fd, bytes), bytes));
  shmgemm_header header = new_header(bytes, queue_pairs + clients);
  divide_among_clients(header, queue_pairs, guest_arena_bytes);
  header.queue_pair_offset = header_offset(engines);
  region->use_header(header);
  region->restore_header();
  for (std::uint32_t engine = 1; engine < engines; ++engine) {
    header.queue_pair_offset += std::uint64_t{header.queue_pair_count} * SHMGEMM_QUEUE_PAIR_BYTES;
    header.queue_pair_count = 1;
    region->others_.emplace_back(new Region(*region, engine));
    region->others_.back()->use_header(header);
    region->others_.back()->restore_header();
  }
  return region;
}

std::shared_ptr<Region> Region::serve_file(const std::string& path, std::uint64_t bytes) {
  NamedFile file = open_named_file(path, bytes);
  std::shared_ptr<Region> region(new Region(file.fd, map(file.fd, file.bytes), file.bytes));
  if (is_zero(region->base_)) {
    shmgemm_header header = new_header(file.bytes, 1);
    const std::uint64_t most = header.heap_bytes / 4 / SHMGEMM_PAGE_BYTES * SHMGEMM_PAGE_BYTES;
    divide_heap(header, kNamedArenas, std::min(kNamedGuestBytes, most));
    region->use_header(header);
  } else {
    region->use_header(checked_header(region->base_, file.bytes));
  }
  region->begin_generation();
  return region;
}

std::shared_ptr<Region> Region::attach(int fd, std::uint32_t engine) {
  struct stat status{};
  if (fstat(fd, &status) != 0) throw ProtocolError(system_error("region descriptor"));
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (bytes < SHMGEMM_MIN_REGION_BYTES) {
    close(fd);
    throw ProtocolError("region file of " + std::to_string(bytes) +
                        " bytes: at least 4 MiB expected");
  }
  if (engine >= SHMGEMM_MAX_ENGINES) {
    close(fd);
    throw ProtocolError("engine number " + std::to_string(engine) + " of a region: expected 0 to " +
                        std::to_string(SHMGEMM_MAX_ENGINES - 1));
  }
  std::shared_ptr<Region> region(new Region(fd, map(fd, bytes), bytes, engine));
  region->use_header(checked_header(region->base_ + header_offset(engine), bytes));
  return region;
}

void Region::use_header(const shmgemm_header& header) {
  written_ = header;
  heap_begin_ = header.heap_offset;
  queue_pair_offset_ = header.queue_pair_offset;
  queue_pairs_ = header.queue_pair_count;
  id_ = {header.region_id[0], header.region_id[1]};
  arenas_.assign(header.arenas, header.arenas + header.arena_count);
}

shmgemm_arena Region::arena(shmgemm_arena_state state) const {
  for (const shmgemm_arena& arena : arenas_) {
    if (arena.state == static_cast<std::uint32_t>(state)) return arena;
  }
  return {};
}

ArenaLease Region::lease_arena(shmgemm_arena_state state) const {
  std::size_t candidates = 0;
  for (const shmgemm_arena& arena : arenas_) {
    if (arena.state != static_cast<std::uint32_t>(state)) continue;
    if (state == SHMGEMM_ARENA_FREE && arena.owner != 0) continue;  // kept for that client
    ++candidates;
    if (ArenaLease lease(fd_, arena); lease.held()) return lease;
  }
  throw RegionFull("no arena of the region is free: it has " + std::to_string(candidates) +
                   " of that kind, each leased by another process");
}

shmgemm_arena Region::client_arena(std::uint32_t queue_pair) const {
  for (const shmgemm_arena& arena : arenas_) {
    if (arena.state == SHMGEMM_ARENA_FREE && arena.owner == 1 + queue_pair) return arena;
  }
  return {};
}

shmgemm_queue_pair* Region::queue_pair(std::uint32_t index) const {
  return reinterpret_cast<shmgemm_queue_pair*>(base_ + queue_pair_offset_ +
                                               std::uint64_t{index} * SHMGEMM_QUEUE_PAIR_BYTES);
}

std::uint32_t Region::generation() const {
  return __atomic_load_n(&header()->generation, __ATOMIC_SEQ_CST);
}

void Region::clear_queue_pair(std::uint32_t index) {
  std::memset(static_cast<void*>(queue_pair(index)), 0, sizeof(shmgemm_queue_pair));
  std::memset(static_cast<void*>(client(index)), 0, sizeof(shmgemm_peer));
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
  auto* to = reinterpret_cast<std::uint64_t*>(header());
  for (std::size_t i = 0; i < kWords; ++i) __atomic_store_n(to + i, words[i], __ATOMIC_SEQ_CST);
}

}  // namespace shmgemm::region
