// A TCP connection to a device server: opened with a deadline, written and read with one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "abi/shmgemm_wire.h"
#include "region/waiter.h"

namespace shmgemm::client {

struct ServerAddress {
  std::string host;
  std::uint16_t port = 0;
  std::string text() const { return host + ":" + std::to_string(port); }
};

// "HOST:PORT"; Unsupported.
ServerAddress parse_address(const std::string& text);

inline constexpr std::size_t kWireHeadBytes = SHMGEMM_WIRE_HEAD_BYTES;
void write_wire_head(char* to, shmgemm_wire_op op, std::uint32_t payload_bytes);
void write_big_endian(char* to, std::uint32_t value);
std::uint32_t read_big_endian(const char* from);

class TcpConnection {
 public:
  using Deadline = region::Clock::time_point;

  // DeviceLost where nobody listens there, DeviceTimeout where nobody answers in time.
  TcpConnection(const ServerAddress& address, Deadline deadline);
  ~TcpConnection();
  TcpConnection(const TcpConnection&) = delete;
  TcpConnection& operator=(const TcpConnection&) = delete;

  int fd() const { return fd_; }
  const ServerAddress& address() const { return address_; }
  bool is_stale() const;  // the other side hung up, or sent what nobody asked for

  // DeviceLost where the other side hangs up, DeviceTimeout, Interrupted.
  void send(const void* data, std::size_t bytes, Deadline deadline);
  void receive(void* data, std::size_t bytes, Deadline deadline);
  // What is there, at most `bytes`: 0 where nothing is, -1 where the other side has hung up.
  std::ptrdiff_t receive_some(void* data, std::size_t bytes);
  void hang_up();  // the descriptor stays

 private:
  void await(short events, Deadline deadline);
  [[noreturn]] void throw_lost(const std::string& why) const;

  ServerAddress address_;
  int fd_ = -1;
};

}  // namespace shmgemm::client
