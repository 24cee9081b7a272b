// /dev/sst<index> as one program uses it: a record goes out, its answer comes back, within a
// deadline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "abi/virtio_sst.h"

namespace shmgemm::sstctl {

// What is missing or went wrong, and what to do about it.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class DeviceFile {
 public:
  explicit DeviceFile(const std::string& path);
  ~DeviceFile();
  DeviceFile(const DeviceFile&) = delete;
  DeviceFile& operator=(const DeviceFile&) = delete;

  virtio_sst_info info() const;

  // An older record; Failure where its status is not OK.
  virtio_sst_response request(shmgemm_op type, const void* payload, std::size_t bytes);
  shmgemm_completion command(const shmgemm_command& command);

  // The whole region, mapped for as long as the file is open.
  std::byte* map_region(std::uint64_t bytes);
  void lock();  // one tool at a time

 private:
  void write_all(const void* record, std::size_t bytes);
  void read_all(void* record, std::size_t bytes);

  std::string path_;
  int fd_;
  std::uint64_t next_id_ = 0;
  std::byte* region_ = nullptr;
  std::uint64_t region_bytes_ = 0;
};

}  // namespace shmgemm::sstctl
