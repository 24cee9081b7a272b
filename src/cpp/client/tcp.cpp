#include "client/tcp.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "client/interrupt.h"
#include "region/error.h"

namespace shmgemm::client {
namespace {

constexpr int kSliceMs = 20;  // how often a blocked call looks up

struct Resolved {
  explicit Resolved(const ServerAddress& address) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    const int error =
        getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
    if (error != 0) {
      throw Unsupported("device server " + address.text() + ": " + gai_strerror(error) +
                        "; expected HOST:PORT, such as 127.0.0.1:9999");
    }
  }
  ~Resolved() { freeaddrinfo(list); }
  addrinfo* list = nullptr;
};

int error_of(int fd) {
  int error = 0;
  socklen_t bytes = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) == 0 ? error : errno;
}

}  // namespace

ServerAddress parse_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  unsigned port = 0;
  if (colon != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + colon + 1, end, port);
    if (at != end || error != std::errc()) port = 0;
  }
  if (colon == 0 || port < 1 || port > 65535) {
    throw Unsupported("device server '" + text + "': expected HOST:PORT, such as 127.0.0.1:9999");
  }
  return {text.substr(0, colon), static_cast<std::uint16_t>(port)};
}

void write_big_endian(char* to, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<char>(value >> (24 - 8 * i));
}

std::uint32_t read_big_endian(const char* from) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(from[i]);
  return value;
}

void write_wire_head(char* to, shmgemm_wire_op op, std::uint32_t payload_bytes) {
  write_big_endian(to, SHMGEMM_WIRE_MAGIC);
  write_big_endian(to + 4, payload_bytes);
  to[8] = static_cast<char>(op);
}

TcpConnection::TcpConnection(const ServerAddress& address, Deadline deadline) : address_(address) {
  const Resolved resolved(address);
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) throw Unsupported(std::string("socket: ") + std::strerror(errno));
  try {
    const int one = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd_, resolved.list->ai_addr, resolved.list->ai_addrlen) != 0) {
      if (errno != EINPROGRESS) throw_lost(std::strerror(errno));
      await(POLLOUT, deadline);
      if (const int error = error_of(fd_)) throw_lost(std::strerror(error));
    }
  } catch (...) {
    close(fd_);
    throw;
  }
}

TcpConnection::~TcpConnection() { close(fd_); }

void TcpConnection::throw_lost(const std::string& why) const {
  throw DeviceLost("device server " + address_.text() + ": " + why);
}

// An event, or an error, which the call that follows will tell.
void TcpConnection::await(short events, Deadline deadline) {
  for (;;) {
    pollfd watched{fd_, events, 0};
    if (::poll(&watched, 1, kSliceMs) > 0) return;
    if (interrupted()) throw Interrupted("interrupted while waiting for the device server");
    if (region::Clock::now() >= deadline) {
      throw DeviceTimeout("device server " + address_.text() + " did not answer in time");
    }
  }
}

bool TcpConnection::is_stale() const {
  pollfd watched{fd_, POLLIN | POLLRDHUP, 0};
  return ::poll(&watched, 1, 0) != 0;
}

void TcpConnection::send(const void* data, std::size_t bytes, Deadline deadline) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = ::send(fd_, at, bytes, MSG_NOSIGNAL);
    if (sent > 0) {
      at += sent;
      bytes -= static_cast<std::size_t>(sent);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      await(POLLOUT, deadline);
    } else if (errno != EINTR) {
      throw_lost(std::strerror(errno));
    }
  }
}

std::ptrdiff_t TcpConnection::receive_some(void* data, std::size_t bytes) {
  for (;;) {
    const ssize_t got = ::recv(fd_, data, bytes, 0);
    if (got > 0) return got;
    if (got < 0 && errno == EINTR) continue;
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
  }
}

void TcpConnection::receive(void* data, std::size_t bytes, Deadline deadline) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    const std::ptrdiff_t got = receive_some(at, bytes);
    if (got < 0) throw_lost("the connection was closed by the server, whose log says why");
    if (got == 0) await(POLLIN, deadline);
    at += got;
    bytes -= static_cast<std::size_t>(got);
  }
}

void TcpConnection::hang_up() { shutdown(fd_, SHUT_RDWR); }

}  // namespace shmgemm::client
