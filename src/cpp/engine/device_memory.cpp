#include "engine/device_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace shmgemm::engine {

DeviceMemory::~DeviceMemory() { zero(); }

void DeviceMemory::read(std::uint64_t address, std::byte* to, std::uint64_t bytes) {
  if (base_ == nullptr) {
    std::memset(to, 0, bytes);
  } else {
    std::memcpy(to, base_ + address, bytes);
  }
}

void DeviceMemory::write(std::uint64_t address, const std::byte* from, std::uint64_t bytes) {
  std::memcpy(base() + address, from, bytes);
}

void DeviceMemory::zero() {
  if (base_ != nullptr) munmap(base_, kBytes);
  base_ = nullptr;
}

std::byte* DeviceMemory::base() {
  if (base_ != nullptr) return base_;
  void* const mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  return base_ = static_cast<std::byte*>(mapped);
}

}  // namespace shmgemm::engine
