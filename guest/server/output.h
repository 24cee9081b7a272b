// What is to go out on one connection, in order, in pieces that are sent without being joined. A
// piece may hold the reservation of the memory it takes.
#pragma once

#include <deque>
#include <span>

#include "budget.h"
#include "frame.h"

namespace shmgemm::server {

class Output {
 public:
  void add(Bytes bytes, Budget::Reservation reservation = {});
  void add_size(std::uint64_t bytes);                    // >I
  void add_sized(const void* small, std::size_t bytes);  // behind its size, as one piece
  bool empty() const { return pieces_.empty(); }
  std::uint64_t bytes() const { return bytes_; }

  // Sends what the socket takes; false where the client is gone.
  bool send(int fd);

 private:
  struct Piece {
    Bytes bytes;
    Budget::Reservation reservation;
  };
  void drop(std::uint64_t count);

  std::deque<Piece> pieces_;
  std::size_t sent_ = 0;  // of the first piece
  std::uint64_t bytes_ = 0;
};

}  // namespace shmgemm::server
