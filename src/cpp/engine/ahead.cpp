#include "engine/ahead.h"

#include <algorithm>

namespace shmgemm::engine {
namespace {

// About 0.2 ms of one core: a host that flushes meanwhile waits no longer than that, or than for
// one product.
constexpr std::uint64_t kWaveMacs = 16u << 20;

bool has_values(const Dependency& input) {
  return input.ended() || input.op->values == Values::kThere;
}

bool takes_no_time(const Op& op) {
  return op.command.op == SHMGEMM_OP_NOOP || op.command.op == SHMGEMM_OP_ECHO;
}

}  // namespace

std::uint64_t macs_of(const shmgemm_command& gemm) {
  std::uint64_t macs = std::uint64_t{gemm.m} * gemm.n;
  const bool overflows = __builtin_mul_overflow(macs, gemm.k, &macs) ||
                         __builtin_mul_overflow(macs, gemm.batch, &macs);
  return overflows ? UINT64_MAX : macs;
}

void Ahead::add(Op* op) {
  if (op->command.op != SHMGEMM_OP_GEMM && !takes_no_time(*op)) return;
  op->values = Values::kAwaited;
  entries_.push_back({op, op->ticket, op->connection});
}

void Ahead::forget(const Connection& connection) {
  const auto is_theirs = [&](const Entry& entry) { return entry.connection == &connection; };
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(), is_theirs), entries_.end());
}

template <class Wanted>
const std::vector<Op*>& Ahead::gather(std::uint64_t most_macs, Wanted&& wanted) {
  wave_.clear();
  std::uint64_t macs = 0;
  const auto settled = [&](const Entry& entry) {
    if (entry.over()) return true;
    Op& op = *entry.op;
    if (macs >= most_macs || !wanted(entry) || !has_values(op.after) || !has_values(op.previous)) {
      return false;
    }
    if (takes_no_time(op)) {
      op.values = Values::kThere;
      return true;
    }
    const std::uint64_t more = macs_of(op.command);
    macs = more > UINT64_MAX - macs ? UINT64_MAX : macs + more;
    wave_.push_back(&op);
    return true;
  };
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(), settled), entries_.end());
  return wave_;
}

const std::vector<Op*>& Ahead::next() {
  return gather(kWaveMacs, [](const Entry&) { return true; });
}

const std::vector<Op*>& Ahead::next(const Connection& connection, std::uint64_t last_ticket) {
  return gather(UINT64_MAX, [&](const Entry& entry) {
    return entry.connection == &connection && entry.ticket <= last_ticket;
  });
}

}  // namespace shmgemm::engine
