#include "output.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace shmgemm::server {
namespace {

void write_size(std::byte* to, std::uint64_t bytes) {
  for (std::size_t i = 0; i < kSizeBytes; ++i) {
    to[i] = static_cast<std::byte>(bytes >> 8 * (kSizeBytes - 1 - i));
  }
}

}  // namespace

void Output::add(Bytes bytes, Budget::Reservation reservation) {
  if (bytes.empty()) return;
  bytes_ += bytes.size();
  pieces_.push_back({std::move(bytes), std::move(reservation)});
}

void Output::add_size(std::uint64_t bytes) {
  Bytes size(kSizeBytes);
  write_size(size.data(), bytes);
  add(std::move(size));
}

void Output::add_sized(const void* small, std::size_t bytes) {
  Bytes piece(kSizeBytes + bytes);
  write_size(piece.data(), bytes);
  std::memcpy(piece.data() + kSizeBytes, small, bytes);
  add(std::move(piece));
}

// Emulated, each time that the kernel reaches into user memory costs 20 us and more (QEMU throws
// its TLB away): so one piece goes without a msghdr.
bool Output::send(int fd) {
  constexpr std::size_t kPieces = 16;
  while (!pieces_.empty()) {
    iovec parts[kPieces];
    const std::size_t count = std::min(kPieces, pieces_.size());
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t skip = i == 0 ? sent_ : 0;
      parts[i] = {pieces_[i].bytes.data() + skip, pieces_[i].bytes.size() - skip};
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    const ssize_t sent = count == 1 ? ::send(fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL)
                                    : sendmsg(fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return errno == EAGAIN;
    drop(static_cast<std::uint64_t>(sent));
  }
  return true;
}

void Output::drop(std::uint64_t count) {
  bytes_ -= count;
  while (count > 0) {
    const std::uint64_t left = pieces_.front().bytes.size() - sent_;
    if (count < left) {
      sent_ += count;
      return;
    }
    count -= left;
    sent_ = 0;
    pieces_.pop_front();
  }
}

}  // namespace shmgemm::server
