// The way through a device server: frames of commands go out on one TCP connection, blocks of
// completions come back. Matrices stay in the region; this moves 128 + 64 bytes and the frames'
// heads for each command.
#pragma once

#include <memory>
#include <vector>

#include "client/port.h"
#include "client/tcp.h"

namespace shmgemm::client {

class ServerPort final : public Port {
 public:
  ServerPort(const ServerAddress& address, TcpConnection::Deadline deadline);
  ~ServerPort() override;

  void publish(const shmgemm_command& command) override;
  bool poll(shmgemm_completion& completion) override;
  bool wait(const std::atomic<bool>& stop, region::Nanoseconds limit,
            region::Expect expect) override;
  void wake() override;

  TcpConnection& connection() { return connection_; }

 private:
  static constexpr std::size_t kMaxTogether = 64;  // commands in one frame

  void send();
  void receive();
  bool complete() const;  // the next completion is in received_

  TcpConnection connection_;
  int wake_;  // eventfd
  std::vector<shmgemm_command> unsent_;
  std::vector<char> received_;
  std::size_t taken_ = 0;       // of received_
  std::size_t block_left_ = 0;  // completions of the block that is being taken
  bool ended_ = false;          // the server has hung up
};

}  // namespace shmgemm::client
