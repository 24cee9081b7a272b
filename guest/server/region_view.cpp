#include "region_view.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "abi/shmgemm_validate.h"
#include "arena.h"

namespace shmgemm::server {

std::string region_id_text(const std::uint64_t id[2]) {
  char text[40];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(id[0]),
                static_cast<unsigned long long>(id[1]));
  return text;
}

RegionView::RegionView(int fd, std::uint64_t bytes, bool lock) : bytes_(bytes) {
  if (bytes < SHMGEMM_MIN_REGION_BYTES) {
    throw RegionError("a region of " + std::to_string(bytes) + " bytes: at least 4 MiB expected");
  }
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) throw RegionError(std::string("mapping the region: ") + strerror(errno));
  base_ = static_cast<std::byte*>(base);
  try {
    read_header();
    if (lock) take_lock(fd);
  } catch (...) {
    munmap(base_, bytes_);
    throw;
  }
}

std::uint64_t RegionView::arena_end() const { return guest::tools_begin(arena_); }

RegionView::~RegionView() {
  munmap(base_, bytes_);
  if (lock_fd_ >= 0) close(lock_fd_);
}

void RegionView::read_header() {
  shmgemm_header header;
  std::memcpy(&header, base_, sizeof header);
  const shmgemm_status valid = shmgemm_validate_header(&header, bytes_);
  if (valid != SHMGEMM_STATUS_OK) {
    throw RegionError(std::string("the region's header: ") + shmgemm_status_text(valid));
  }
  std::memcpy(id_, header.region_id, sizeof id_);
  arena_ = guest::guest_arena(header);
  if (arena_.bytes == 0) throw RegionError("the region has no arena for a device server");
}

// A description of its own: the lock goes with it, whoever else has the file open.
void RegionView::take_lock(int fd) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  lock_fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(arena_.offset);
  lock.l_len = 1;
  if (lock_fd_ >= 0 && fcntl(lock_fd_, F_OFD_SETLK, &lock) == 0) return;
  const std::string why = strerror(errno);
  if (lock_fd_ >= 0) close(lock_fd_);
  throw RegionError("the arena for a device server is in another server's hands (" + why + ")");
}

}  // namespace shmgemm::server
