// /dev/sst<index> as a channel (abi/virtio_sst.h): one open file for each client, never blocking.
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "abi/virtio_sst.h"
#include "channel.h"

namespace shmgemm::server {
namespace {

constexpr std::size_t kReadBatch = 64;

virtio_sst_info ask_info(int fd, const std::string& path) {
  virtio_sst_info info{};
  if (ioctl(fd, VIRTIO_SST_IOC_INFO, &info) != 0) {
    throw ChannelLost(path + " does not answer as a virtio-sst device: " + strerror(errno));
  }
  if (info.abi_major != SHMGEMM_ABI_MAJOR) {
    throw ChannelLost("module version mismatch: virtio-sst speaks ABI " +
                      std::to_string(info.abi_major) + ", this server " +
                      std::to_string(SHMGEMM_ABI_MAJOR));
  }
  return info;
}

class DeviceChannel : public Channel {
 public:
  explicit DeviceChannel(const std::string& path)
      : path_(path), fd_(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC)) {
    if (fd_ < 0) throw ChannelLost(path + ": " + strerror(errno));
    try {
      const virtio_sst_info info = ask_info(fd_, path);
      peer_ = {info.devices, info.generation, info.region_bytes, {}, info.clock_hz};
      std::memcpy(peer_.region_id, info.region_id, sizeof peer_.region_id);
      connected_ = info.connected != 0;
    } catch (...) {
      close(fd_);
      throw;
    }
  }
  ~DeviceChannel() override { close(fd_); }

  int fd() const override { return fd_; }
  std::uint32_t wanted_events() const override { return EPOLLIN | (full_ ? EPOLLOUT : 0u); }
  const Peer* peer() const override { return &peer_; }
  bool connected() const { return connected_; }

  void check() const override {
    const virtio_sst_info info = ask_info(fd_, path_);
    if (info.connected == 0) throw ChannelLost("no engine is connected to " + path_);
    if (info.generation != peer_.generation) throw ChannelLost("another engine has taken over");
  }

  std::size_t send(std::span<const shmgemm_command> commands) override {
    full_ = false;
    std::size_t taken = 0;
    while (taken < commands.size()) {
      const auto rest = commands.subspan(taken);
      const ssize_t count = write(fd_, rest.data(), rest.size_bytes());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) {
        full_ = true;
        break;
      }
      if (count <= 0) throw ChannelLost("writing to " + path_ + ": " + strerror(errno));
      taken += static_cast<std::size_t>(count) / sizeof(shmgemm_command);
    }
    return taken;
  }

  void receive(std::uint32_t events, std::vector<shmgemm_completion>& completions) override {
    shmgemm_completion batch[kReadBatch];
    if (events & EPOLLOUT) full_ = false;
    for (;;) {
      const ssize_t count = read(fd_, batch, sizeof batch);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN && (events & (EPOLLHUP | EPOLLERR)) == 0) return;
      if (count <= 0) {
        throw ChannelLost("reading " + path_ + ": " + (count < 0 ? strerror(errno) : "it ended"));
      }
      completions.insert(completions.end(), batch,
                         batch + static_cast<std::size_t>(count) / sizeof batch[0]);
      if (static_cast<std::size_t>(count) < sizeof batch) return;
    }
  }

 private:
  std::string path_;
  int fd_;
  Peer peer_{};
  bool connected_ = false;
  bool full_ = false;
};

nlohmann::json device_counters(const virtio_sst_device_counters& device) {
  return {{"commands", device.commands},
          {"requests", device.requests},
          {"completed", device.completed},
          {"no_device", device.no_device},
          {"bad_chains", device.bad_chains},
          {"bytes_to_engine", device.bytes_to_engine},
          {"bytes_from_engine", device.bytes_from_engine},
          {"sojourn_ns", device.sojourn_ns}};
}

nlohmann::json driver_counters(const virtio_sst_counters& driver) {
  return {{"commands", driver.commands},
          {"requests", driver.requests},
          {"completions", driver.completions},
          {"responses", driver.responses},
          {"dropped", driver.dropped},
          {"nonsense", driver.nonsense},
          {"bytes_written", driver.bytes_written},
          {"bytes_read", driver.bytes_read},
          {"sojourn_ns", driver.sojourn_ns},
          {"polls", driver.polls}};
}

class DeviceBackend : public Backend {
 public:
  explicit DeviceBackend(std::string path) : path_(std::move(path)) {}

  std::string name() const override { return path_; }

  // With no engine behind it the file works too; its answers are NO_DEVICE.
  std::unique_ptr<Channel> open() override { return std::make_unique<DeviceChannel>(path_); }

  std::unique_ptr<RegionView> map_region(const Channel& channel) override {
    const Peer& peer = *channel.peer();
    if (!static_cast<const DeviceChannel&>(channel).connected()) {
      throw ChannelLost("no engine is connected to " + path_);
    }
    if (peer.region_bytes == 0) {
      throw ChannelLost("the driver has no region (is there an ivshmem device?)");
    }
    return std::make_unique<RegionView>(channel.fd(), peer.region_bytes, false);
  }

  nlohmann::json counters() override {
    virtio_sst_counters counters{};
    const int fd = ::open(path_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    const bool known = fd >= 0 && ioctl(fd, VIRTIO_SST_IOC_COUNTERS, &counters) == 0;
    if (fd >= 0) close(fd);
    if (!known) return nlohmann::json::object();
    return {{"driver", driver_counters(counters)},
            {"virtio_device", device_counters(counters.device)}};
  }

 private:
  std::string path_;
};

}  // namespace

std::unique_ptr<Backend> device_backend(const std::string& path) {
  return std::make_unique<DeviceBackend>(path);
}

}  // namespace shmgemm::server
