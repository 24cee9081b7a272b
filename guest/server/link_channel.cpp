// A link to an engine on this host as a channel (abi/shmgemm_link.h): one Unix connection for each
// client. The region is a file of this host.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "abi/shmgemm_link.h"
#include "channel.h"

namespace shmgemm::server {
namespace {

constexpr std::size_t kReadBytes = 16u << 10;

int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw ChannelLost("link " + path + ": the path is longer than a socket's may be");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw ChannelLost(std::string("socket: ") + strerror(errno));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const std::string why = strerror(errno);
  close(fd);
  throw ChannelLost("no engine listens on link " + path + ": " + why);
}

class LinkChannel : public Channel {
 public:
  explicit LinkChannel(const std::string& path) : path_(path), fd_(connect_to(path)) {
    shmgemm_link_hello hello{};
    hello.magic = SHMGEMM_LINK_MAGIC;
    hello.abi_major = SHMGEMM_ABI_MAJOR;
    hello.abi_minor = SHMGEMM_ABI_MINOR;
    hello.role = SHMGEMM_LINK_SERVER;
    append(SHMGEMM_LINK_HELLO, &hello, sizeof hello);
  }
  ~LinkChannel() override { close(fd_); }

  int fd() const override { return fd_; }
  std::uint32_t wanted_events() const override {
    return EPOLLIN | (out_.empty() ? 0u : static_cast<std::uint32_t>(EPOLLOUT));
  }
  const Peer* peer() const override { return greeted_ ? &peer_ : nullptr; }

  std::size_t send(std::span<const shmgemm_command> commands) override {
    if (!greeted_) return 0;
    const std::size_t count =
        std::min<std::size_t>(commands.size(), SHMGEMM_RING_SLOTS - in_flight_);
    if (count == 0) return 0;
    append(SHMGEMM_LINK_COMMANDS, commands.data(), count * sizeof(shmgemm_command));
    in_flight_ += count;
    flush();
    return count;
  }

  void receive(std::uint32_t, std::vector<shmgemm_completion>& completions) override {
    flush();
    char buffer[kReadBytes];
    for (;;) {
      const ssize_t count = recv(fd_, buffer, sizeof buffer, 0);
      const int error = errno;
      if (count > 0) in_.insert(in_.end(), buffer, buffer + count);
      parse(completions);
      if (count < 0 && error == EINTR) continue;
      if (count < 0 && error == EAGAIN) return;
      if (count <= 0) {
        throw ChannelLost("the engine hung up (link " + path_ +
                          (count < 0 ? std::string(": ") + strerror(error) : "") + ")");
      }
    }
  }

 private:
  void append(std::uint32_t kind, const void* content, std::size_t bytes) {
    const shmgemm_link_head head{kind, static_cast<std::uint32_t>(bytes)};
    const auto* first = reinterpret_cast<const char*>(&head);
    out_.insert(out_.end(), first, first + sizeof head);
    const auto* from = static_cast<const char*>(content);
    out_.insert(out_.end(), from, from + bytes);
  }

  void flush() {
    while (!out_.empty()) {
      const ssize_t count = ::send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) return;
      // A hang-up is told by receive(), which may find FAILED with the reason first.
      if (count < 0) return out_.clear();
      out_.erase(out_.begin(), out_.begin() + count);
    }
  }

  void parse(std::vector<shmgemm_completion>& completions) {
    std::size_t at = 0;
    shmgemm_link_head head;
    while (in_.size() - at >= sizeof head) {
      std::memcpy(&head, in_.data() + at, sizeof head);
      if (head.bytes > SHMGEMM_LINK_MAX_BYTES) {
        fail("a frame of " + std::to_string(head.bytes) + " bytes");
      }
      if (in_.size() - at - sizeof head < head.bytes) break;
      take(head, in_.data() + at + sizeof head, completions);
      at += sizeof head + head.bytes;
    }
    in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  void take(const shmgemm_link_head& head, const char* content,
            std::vector<shmgemm_completion>& completions) {
    if (head.kind == SHMGEMM_LINK_FAILED) {
      const std::size_t bytes = std::min<std::size_t>(head.bytes, SHMGEMM_LINK_TEXT_BYTES);
      throw ChannelLost("the engine refuses: " + std::string(content, bytes));
    }
    if (!greeted_) return greet(head, content);
    constexpr std::size_t size = sizeof(shmgemm_completion);
    const std::size_t count = head.bytes / size;
    if (head.kind != SHMGEMM_LINK_COMPLETIONS || head.bytes % size != 0 || count == 0) {
      fail("a frame of kind " + std::to_string(head.kind) + " and " + std::to_string(head.bytes) +
           " bytes where completions are due");
    }
    if (count > in_flight_) fail("more completions than commands are in flight");
    in_flight_ -= count;
    const std::size_t before = completions.size();
    completions.resize(before + count);
    std::memcpy(completions.data() + before, content, head.bytes);
  }

  void greet(const shmgemm_link_head& head, const char* content) {
    shmgemm_link_hello hello;
    if (head.kind != SHMGEMM_LINK_HELLO || head.bytes != sizeof hello) {
      fail("a frame of kind " + std::to_string(head.kind) + " where HELLO is due");
    }
    std::memcpy(&hello, content, sizeof hello);
    if (hello.magic != SHMGEMM_LINK_MAGIC) fail("a wrong magic number");
    if (hello.abi_major != SHMGEMM_ABI_MAJOR) {
      fail("ABI version " + std::to_string(hello.abi_major) + " where this server speaks " +
           std::to_string(SHMGEMM_ABI_MAJOR));
    }
    if (hello.role != SHMGEMM_LINK_ENGINE) fail("role " + std::to_string(hello.role));
    peer_ = {hello.devices, hello.generation, hello.region_bytes, {}, hello.clock_hz};
    std::memcpy(peer_.region_id, hello.region_id, sizeof peer_.region_id);
    greeted_ = true;
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw ChannelLost("link " + path_ + " brought " + what);
  }

  std::string path_;
  int fd_;
  bool greeted_ = false;
  Peer peer_{};
  std::size_t in_flight_ = 0;
  std::vector<char> out_, in_;
};

class LinkBackend : public Backend {
 public:
  LinkBackend(std::string link, std::string region)
      : link_(std::move(link)), region_(std::move(region)) {}

  std::string name() const override { return link_; }
  std::unique_ptr<Channel> open() override { return std::make_unique<LinkChannel>(link_); }
  nlohmann::json counters() override { return nlohmann::json::object(); }

  std::unique_ptr<RegionView> map_region(const Channel&) override {
    const int fd = ::open(region_.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) throw ChannelLost("region " + region_ + ": " + strerror(errno));
    struct stat status{};
    try {
      if (fstat(fd, &status) != 0) throw ChannelLost("region " + region_ + ": " + strerror(errno));
      auto view =
          std::make_unique<RegionView>(fd, static_cast<std::uint64_t>(status.st_size), true);
      close(fd);
      return view;
    } catch (...) {
      close(fd);
      throw;
    }
  }

 private:
  std::string link_, region_;
};

}  // namespace

// `region`: a path, or the number of an inherited descriptor.
std::unique_ptr<Backend> link_backend(const std::string& link, const std::string& region) {
  const bool number =
      std::all_of(region.begin(), region.end(), [](char c) { return c >= '0' && c <= '9'; });
  return std::make_unique<LinkBackend>(link, number ? "/proc/self/fd/" + region : region);
}

}  // namespace shmgemm::server
