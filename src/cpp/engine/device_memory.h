// A device's own memory, which READ and WRITE reach and no one else. Pages are committed when they
// are first written to.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shmgemm::engine {

class DeviceMemory {
 public:
  static constexpr std::uint64_t kBytes = 64ull << 20;

  DeviceMemory() = default;
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  static bool contains(std::uint64_t address, std::uint64_t bytes) {
    return address <= kBytes && bytes <= kBytes - address;
  }
  // `address` and `bytes` lie within; std::bad_alloc where the machine has no room.
  void read(std::uint64_t address, std::byte* to, std::uint64_t bytes);
  void write(std::uint64_t address, const std::byte* from, std::uint64_t bytes);
  void zero();

 private:
  std::byte* base();

  std::byte* base_ = nullptr;  // null: never written to
};

}  // namespace shmgemm::engine
