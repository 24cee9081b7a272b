// Products that have arrived and not started, so that their values can be computed before simulated
// time reaches them: while the host still stages what comes next, and several at once where they
// wait for nothing. Simulated time knows nothing of it. What a product waits for (`after`, and the
// op before it in its stream) has its values first; ops that have none and take time, or write
// memory, have ended first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/op.h"

namespace shmgemm::engine {

class Ahead {
 public:
  bool empty() const { return entries_.empty(); }
  void add(Op* op);
  void forget(const Connection& connection);  // its ops are about to go

  // The next products whose inputs are there, in the order in which they arrived: so many that
  // together they are worth the threads' while. Empty where there is none.
  const std::vector<Op*>& next();
  // All that are, among what this connection sent up to the op with that ticket.
  const std::vector<Op*>& next(const Connection& connection, std::uint64_t last_ticket);

 private:
  struct Entry {
    Op* op;
    std::uint64_t ticket;
    const Connection* connection;
    bool over() const { return op->ticket != ticket || op->values != Values::kAwaited; }
  };

  template <class Wanted>
  const std::vector<Op*>& gather(std::uint64_t most_macs, Wanted&& wanted);

  std::vector<Entry> entries_;  // in order of arrival
  std::vector<Op*> wave_;
};

std::uint64_t macs_of(const shmgemm_command& gemm);

}  // namespace shmgemm::engine
