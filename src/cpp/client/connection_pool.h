// Connections to a device server that threads share, each used by one at a time. They belong to the
// process that opened them, as its session does.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "client/tcp.h"

namespace shmgemm::client {

class ConnectionPool {
 public:
  using Deadline = TcpConnection::Deadline;

  ConnectionPool(ServerAddress address, std::uint32_t size);

  // A connection for as long as this lives. One that broke while it was lent is not lent again.
  class Lent {
   public:
    Lent(ConnectionPool& pool, std::unique_ptr<TcpConnection> connection, bool used_before);
    ~Lent();
    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;
    TcpConnection& operator*() const { return *connection_; }
    // It may have died of old age: worth one more try on a fresh one.
    bool used_before() const { return used_before_; }
    void give_back() { good_ = true; }  // after a whole exchange

   private:
    ConnectionPool& pool_;
    std::unique_ptr<TcpConnection> connection_;
    bool used_before_;
    bool good_ = false;
  };

  // DeviceTimeout where all are lent until the deadline; what TcpConnection throws. `fresh`: never
  // one that was used before.
  std::unique_ptr<Lent> checkout(Deadline deadline, bool fresh = false);
  void close();  // those that are idle
  std::uint32_t open() const;

 private:
  void come_back(std::unique_ptr<TcpConnection> connection, bool good);

  const ServerAddress address_;
  const std::uint32_t size_;
  mutable std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<TcpConnection>> idle_;
  std::uint32_t lent_ = 0;
};

}  // namespace shmgemm::client
