#include "client/attach.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <utility>

#include "client/interrupt.h"
#include "region/error.h"

namespace shmgemm::client {
namespace {

constexpr int kSliceMs = 20;  // how often a blocked call looks up

// Waits no longer for room in the engine's queue than its answers may take.
int connect_to(const std::string& path, region::Nanoseconds limit) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw Unsupported("session socket " + path + ": a path of at most " +
                      std::to_string(sizeof address.sun_path - 1) + " bytes expected");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw Unsupported(std::string("socket: ") + std::strerror(errno));
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(limit).count();
  const timeval time{us / 1'000'000, std::max<long>(us % 1'000'000, 1)};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int why = errno;
  close(fd);
  throw DeviceLost("session socket " + path + ": " + std::strerror(why));
}

}  // namespace

Attachment::Attachment(std::string path, Deadline deadline)
    : path_(std::move(path)), fd_(connect_to(path_, deadline - region::Clock::now())) {
  try {
    greet(deadline);
    const std::string lease = receive_frame(SHMGEMM_LINK_LEASE, deadline);
    take_lease(lease, std::exchange(passed_fd_, -1));
  } catch (...) {
    if (passed_fd_ >= 0) close(passed_fd_);
    close(fd_);
    throw;
  }
}

Attachment::~Attachment() { close(fd_); }

void Attachment::hang_up() { shutdown(fd_, SHUT_RDWR); }

void Attachment::greet(Deadline deadline) {
  struct {
    shmgemm_link_head head{SHMGEMM_LINK_HELLO, sizeof(shmgemm_link_hello)};
    shmgemm_link_hello hello{};
  } frame;
  frame.hello.magic = SHMGEMM_LINK_MAGIC;
  frame.hello.abi_major = SHMGEMM_ABI_MAJOR;
  frame.hello.abi_minor = SHMGEMM_ABI_MINOR;
  frame.hello.role = SHMGEMM_LINK_CLIENT;
  if (send(fd_, &frame, sizeof frame, MSG_NOSIGNAL) != sizeof frame) {
    throw DeviceLost("session socket " + path_ + ": " + std::strerror(errno));
  }
  const std::string content = receive_frame(SHMGEMM_LINK_HELLO, deadline);
  if (content.size() != sizeof hello_) throw_protocol("a HELLO of another size");
  std::memcpy(&hello_, content.data(), sizeof hello_);
  if (hello_.magic != SHMGEMM_LINK_MAGIC) throw_protocol("a HELLO with another magic number");
  if (hello_.abi_major != SHMGEMM_ABI_MAJOR) {
    throw_protocol("a HELLO of ABI version " + std::to_string(hello_.abi_major) +
                   ", this build speaks " + std::to_string(SHMGEMM_ABI_MAJOR));
  }
  if (hello_.devices < 1 || hello_.devices > 255) {
    throw_protocol("a HELLO with " + std::to_string(hello_.devices) +
                   " devices, 1 to 255 expected,");
  }
}

// The descriptor is the region's from here on, whatever comes.
void Attachment::take_lease(const std::string& content, int region_fd) {
  if (content.size() < sizeof lease_) {
    if (region_fd >= 0) close(region_fd);
    throw_protocol("a LEASE of " + std::to_string(content.size()) + " bytes");
  }
  std::memcpy(&lease_, content.data(), sizeof lease_);
  parameters_ = content.substr(sizeof lease_);
  if (lease_.queue_pair == SHMGEMM_LINK_NO_QUEUE_PAIR) {
    if (region_fd >= 0) close(region_fd);
    throw RegionFull(
        "session socket " + path_ + ": " +
        (lease_.clients == 0
             ? "this session has no place for other processes"
             : "the session was opened with clients=" + std::to_string(lease_.clients) +
                   ", and each place is taken: by a client, or by tensors of one that has closed "
                   "its session"));
  }
  if (region_fd < 0) throw_protocol("a LEASE without the region");
  auto region = region::Region::attach(region_fd);
  const std::array<std::uint64_t, 2> id = region->id();
  if (!std::equal(id.begin(), id.end(), hello_.region_id)) throw_protocol("another region");
  if (lease_.queue_pair >= region->queue_pairs() ||
      region->client_arena(lease_.queue_pair).bytes == 0) {
    throw_protocol("queue pair " + std::to_string(lease_.queue_pair) + " of a region with " +
                   std::to_string(region->queue_pairs()));
  }
  heap_ = Heap::join(std::move(region), lease_.queue_pair);
}

std::string Attachment::receive_frame(shmgemm_link_kind kind, Deadline deadline) {
  shmgemm_link_head head{};
  receive(&head, sizeof head, deadline);
  if (head.bytes > SHMGEMM_LINK_MAX_BYTES) {
    throw_protocol("a frame of " + std::to_string(head.bytes) + " bytes");
  }
  std::string content(head.bytes, '\0');
  receive(content.data(), content.size(), deadline);
  if (head.kind == SHMGEMM_LINK_FAILED) {
    throw Unsupported("session socket " + path_ + ": the engine says: " + content);
  }
  if (head.kind != static_cast<std::uint32_t>(kind)) {
    throw_protocol("a frame of kind " + std::to_string(head.kind));
  }
  return content;
}

void Attachment::receive(void* data, std::size_t bytes, Deadline deadline) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    pollfd watched{fd_, POLLIN, 0};
    if (::poll(&watched, 1, kSliceMs) > 0) {
      const long got = receive_some(at, bytes);
      if (got <= 0) throw DeviceLost("session socket " + path_ + ": the engine hung up");
      at += got;
      bytes -= static_cast<std::size_t>(got);
    }
    if (interrupted()) throw Interrupted("interrupted while attaching");
    if (bytes > 0 && region::Clock::now() >= deadline) {
      throw DeviceTimeout("session socket " + path_ + ": the engine did not answer in time");
    }
  }
}

// With the descriptor that may come along; of more than one the last counts.
long Attachment::receive_some(void* data, std::size_t bytes) {
  iovec piece{data, bytes};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = recvmsg(fd_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  const cmsghdr* const head = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (head != nullptr && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
      head->cmsg_len == CMSG_LEN(sizeof(int))) {
    if (passed_fd_ >= 0) close(passed_fd_);
    std::memcpy(&passed_fd_, CMSG_DATA(head), sizeof passed_fd_);
  }
  return got;
}

std::unique_ptr<Attachment> attach(SessionOptions& options, Deadline deadline) {
  if (options.attach_path.empty()) return nullptr;
  auto attachment = std::make_unique<Attachment>(options.attach_path, deadline);
  options.devices = attachment->devices();
  std::istringstream lines(attachment->parameters());
  for (std::string line; std::getline(lines, line);) {
    const std::size_t equals = line.find('=');
    if (equals != std::string::npos) {
      options.parameters[line.substr(0, equals)] = line.substr(equals + 1);
    }
  }
  return attachment;
}

void Attachment::throw_protocol(const std::string& what) const {
  throw ProtocolError("session socket " + path_ + ": " + what +
                      " came; no shmgemm engine of this "
                      "version listens there");
}

}  // namespace shmgemm::client
