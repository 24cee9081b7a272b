#include "region/arena_lease.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <utility>

namespace shmgemm::region {
namespace {

struct flock lock_of(const shmgemm_arena& arena) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_start = static_cast<off_t>(arena.offset);
  lock.l_len = 1;
  return lock;
}

}  // namespace

bool ArenaLease::is_held(int region_fd, const shmgemm_arena& arena) {
  struct flock lock = lock_of(arena);
  return fcntl(region_fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

ArenaLease::ArenaLease(int region_fd, const shmgemm_arena& arena)
    : begin_(arena.offset), end_(arena.offset + arena.bytes) {
  const std::string path = "/proc/self/fd/" + std::to_string(region_fd);
  fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd_ < 0) return;
  struct flock lock = lock_of(arena);
  if (fcntl(fd_, F_OFD_SETLK, &lock) == 0) return;
  close(fd_);
  fd_ = -1;
}

ArenaLease::ArenaLease(ArenaLease&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), begin_(other.begin_), end_(other.end_) {}

ArenaLease::~ArenaLease() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace shmgemm::region
