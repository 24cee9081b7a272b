#include "client/connection_pool.h"

#include <string>
#include <utility>

#include "client/interrupt.h"
#include "region/error.h"

namespace shmgemm::client {
namespace {

constexpr std::chrono::milliseconds kSlice{20};  // how often a blocked call looks up

}  // namespace

ConnectionPool::ConnectionPool(ServerAddress address, std::uint32_t size)
    : address_(std::move(address)), size_(size) {}

ConnectionPool::Lent::Lent(ConnectionPool& pool, std::unique_ptr<TcpConnection> connection,
                           bool used_before)
    : pool_(pool), connection_(std::move(connection)), used_before_(used_before) {}

ConnectionPool::Lent::~Lent() { pool_.come_back(std::move(connection_), good_); }

std::unique_ptr<ConnectionPool::Lent> ConnectionPool::checkout(Deadline deadline, bool fresh) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (lent_ >= size_) {
    returned_.wait_for(lock, kSlice);
    if (interrupted()) throw Interrupted("interrupted while waiting for a connection");
    if (region::Clock::now() >= deadline) {
      throw DeviceTimeout("all " + std::to_string(size_) + " connections to the device server " +
                          address_.text() + " were in use until the deadline");
    }
  }
  ++lent_;
  if (fresh) idle_.clear();
  std::unique_ptr<TcpConnection> connection;
  while (connection == nullptr && !idle_.empty()) {
    connection = std::move(idle_.back());
    idle_.pop_back();
    if (connection->is_stale()) connection.reset();
  }
  lock.unlock();
  const bool used_before = connection != nullptr;
  try {
    if (!used_before) connection = std::make_unique<TcpConnection>(address_, deadline);
  } catch (...) {
    come_back(nullptr, false);
    throw;
  }
  return std::make_unique<Lent>(*this, std::move(connection), used_before);
}

void ConnectionPool::come_back(std::unique_ptr<TcpConnection> connection, bool good) {
  const std::lock_guard<std::mutex> lock(mutex_);
  --lent_;
  if (good) idle_.push_back(std::move(connection));
  returned_.notify_one();
}

void ConnectionPool::close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  idle_.clear();
}

std::uint32_t ConnectionPool::open() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return lent_ + static_cast<std::uint32_t>(idle_.size());
}

}  // namespace shmgemm::client
