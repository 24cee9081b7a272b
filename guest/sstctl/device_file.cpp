#include "device_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "abi/shmgemm_validate.h"

namespace shmgemm::sstctl {
namespace {

constexpr int kAnswerMs = 60'000;

std::string advice(int error) {
  if (error == ENOENT)
    return " (is the module loaded, `insmod virtio-sst.ko`, and the device there?)";
  if (error == EACCES || error == EPERM) return " (run as root)";
  if (error == ENXIO || error == ENODEV) return " (the driver has no device)";
  return "";
}

std::string status_failure(std::uint32_t status) {
  std::string text = "status " + std::to_string(status) + ": " + shmgemm_status_text(status);
  if (status == SHMGEMM_STATUS_NO_DEVICE)
    text += " (is an engine running, and QEMU connected to it?)";
  return text;
}

}  // namespace

DeviceFile::DeviceFile(const std::string& path)
    : path_(path), fd_(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)) {
  if (fd_ < 0) throw Failure(path + ": " + strerror(errno) + advice(errno));
  try {
    const virtio_sst_info found = info();
    if (found.abi_major != SHMGEMM_ABI_MAJOR) {
      throw Failure("module version mismatch: virtio-sst speaks ABI " +
                    std::to_string(found.abi_major) + "." + std::to_string(found.abi_minor) +
                    ", sstctl " + std::to_string(SHMGEMM_ABI_MAJOR) + "." +
                    std::to_string(SHMGEMM_ABI_MINOR));
    }
  } catch (...) {
    close(fd_);
    throw;
  }
}

DeviceFile::~DeviceFile() {
  if (region_ != nullptr) munmap(region_, region_bytes_);
  close(fd_);
}

virtio_sst_info DeviceFile::info() const {
  virtio_sst_info found{};
  if (ioctl(fd_, VIRTIO_SST_IOC_INFO, &found) != 0) {
    throw Failure(path_ + " does not answer as a virtio-sst device: " + strerror(errno));
  }
  return found;
}

virtio_sst_response DeviceFile::request(shmgemm_op type, const void* payload, std::size_t bytes) {
  virtio_sst_request request{};
  request.type = type;
  request.id = ++next_id_;
  if (bytes > 0) std::memcpy(request.payload, payload, bytes);
  write_all(&request, sizeof request);
  virtio_sst_response response{};
  read_all(&response, sizeof response);
  if (response.id != request.id) {
    throw Failure("an answer to request " + std::to_string(response.id) + " came, to " +
                  std::to_string(request.id) + " expected");
  }
  if (response.status != SHMGEMM_STATUS_OK) throw Failure(status_failure(response.status));
  return response;
}

shmgemm_completion DeviceFile::command(const shmgemm_command& command) {
  write_all(&command, sizeof command);
  shmgemm_completion completion{};
  read_all(&completion, sizeof completion);
  if (completion.id != command.id) {
    throw Failure("an answer to command " + std::to_string(completion.id) + " came, to " +
                  std::to_string(command.id) + " expected");
  }
  if (completion.status != SHMGEMM_STATUS_OK) throw Failure(status_failure(completion.status));
  return completion;
}

std::byte* DeviceFile::map_region(std::uint64_t bytes) {
  if (bytes == 0) throw Failure("the driver has no region (QEMU needs an ivshmem device for it)");
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (base == MAP_FAILED) throw Failure("mapping the region: " + std::string(strerror(errno)));
  region_ = static_cast<std::byte*>(base);
  region_bytes_ = bytes;
  return region_;
}

void DeviceFile::lock() {
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) throw Failure("another tool is using " + path_);
}

void DeviceFile::write_all(const void* record, std::size_t bytes) {
  for (;;) {
    const ssize_t count = write(fd_, record, bytes);
    if (count == static_cast<ssize_t>(bytes)) return;
    if (count >= 0) throw Failure("writing to " + path_ + ": a part of the record was taken");
    if (errno == EINTR) continue;
    if (errno != EAGAIN) throw Failure("writing to " + path_ + ": " + strerror(errno));
    pollfd wait{fd_, POLLOUT, 0};
    if (poll(&wait, 1, kAnswerMs) == 0) throw Failure("the device took nothing within 60 s");
  }
}

void DeviceFile::read_all(void* record, std::size_t bytes) {
  for (;;) {
    const ssize_t count = read(fd_, record, bytes);
    if (count == static_cast<ssize_t>(bytes)) return;
    if (count >= 0) {
      throw Failure("reading " + path_ + ": " + std::to_string(count) + " bytes came, " +
                    std::to_string(bytes) + " expected");
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) throw Failure("reading " + path_ + ": " + strerror(errno));
    pollfd wait{fd_, POLLIN, 0};
    if (poll(&wait, 1, kAnswerMs) == 0) throw Failure("the device did not answer within 60 s");
  }
}

}  // namespace shmgemm::sstctl
