#include "client/server_port.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "region/error.h"

namespace shmgemm::client {
namespace {

constexpr std::size_t kRecord = sizeof(shmgemm_completion);
constexpr std::size_t kMaxBlock = SHMGEMM_RING_SLOTS * kRecord;
constexpr std::chrono::seconds kSendLimit{5};

}  // namespace

ServerPort::ServerPort(const ServerAddress& address, TcpConnection::Deadline deadline)
    : connection_(address, deadline), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_ < 0) throw Unsupported(std::string("eventfd: ") + std::strerror(errno));
}

ServerPort::~ServerPort() { close(wake_); }

void ServerPort::publish(const shmgemm_command& command) {
  unsent_.push_back(command);
  const bool flushes = command.op == SHMGEMM_OP_FLUSH || (command.flags & SHMGEMM_FLAG_FLUSH) != 0;
  if (flushes || unsent_.size() == kMaxTogether) send();
}

// The session's monitor sees a connection that has ended and fails what is in flight on it, these
// commands among it: so an error here only ends the connection.
void ServerPort::send() {
  const std::size_t bytes = unsent_.size() * sizeof(shmgemm_command);
  std::vector<char> frame(kWireHeadBytes + bytes);
  write_wire_head(frame.data(), SHMGEMM_WIRE_COMMANDS, static_cast<std::uint32_t>(bytes));
  std::memcpy(frame.data() + kWireHeadBytes, unsent_.data(), bytes);
  unsent_.clear();
  try {
    connection_.send(frame.data(), frame.size(), region::Clock::now() + kSendLimit);
  } catch (const Error&) {
    connection_.hang_up();
  }
}

bool ServerPort::complete() const { return received_.size() - taken_ >= kRecord; }

void ServerPort::receive() {
  char fresh[4096];
  std::ptrdiff_t got = 0;
  while (received_.size() < 2 * kMaxBlock &&
         (got = connection_.receive_some(fresh, sizeof fresh)) > 0) {
    received_.insert(received_.end(), fresh, fresh + got);
  }
  if (got < 0) ended_ = true;
}

bool ServerPort::poll(shmgemm_completion& completion) {
  receive();
  if (block_left_ == 0) {
    if (received_.size() - taken_ < 4) return false;
    const std::uint32_t bytes = read_big_endian(received_.data() + taken_);
    if (bytes == 0 || bytes % kRecord != 0 || bytes > kMaxBlock) {
      throw ProtocolError("a block of " + std::to_string(bytes) + " bytes; 1 to " +
                          std::to_string(SHMGEMM_RING_SLOTS) + " completions of " +
                          std::to_string(kRecord) + " bytes expected");
    }
    taken_ += 4;
    block_left_ = bytes / kRecord;
  }
  if (!complete()) return false;
  std::memcpy(&completion, received_.data() + taken_, kRecord);
  taken_ += kRecord;
  --block_left_;
  if (taken_ == received_.size()) {
    received_.clear();
    taken_ = 0;
  } else if (taken_ >= kMaxBlock) {
    received_.erase(received_.begin(), received_.begin() + static_cast<std::ptrdiff_t>(taken_));
    taken_ = 0;
  }
  return true;
}

// A connection that has ended is left to the monitor; until it acts there is nothing to see there.
bool ServerPort::wait(const std::atomic<bool>& stop, region::Nanoseconds limit, region::Expect) {
  if (stop.load(std::memory_order_seq_cst) || complete()) return true;
  pollfd watched[2] = {{wake_, POLLIN, 0}, {connection_.fd(), POLLIN, 0}};
  return ::poll(watched, ended_ ? 1 : 2, static_cast<int>(limit.count() / 1'000'000)) > 0;
}

void ServerPort::wake() {
  const std::uint64_t one = 1;
  (void)!write(wake_, &one, sizeof one);
}

}  // namespace shmgemm::client
