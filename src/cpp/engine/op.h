// One accepted command on its way through the engine, and the table of a connection's ops in
// flight: found by the low half of their id (for `after` and duplicates) and by stream (for order
// in a stream).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "abi/shmgemm_abi.h"
#include "model/timing_model.h"

namespace shmgemm::engine {

struct Op;
struct Request;
class Connection;

// Of a product: whether C holds it yet. Of an op without a product: whether all that it waits for
// has its values.
enum class Values : std::uint8_t { kNone, kAwaited, kThere, kFailed };

// An op that another waits for. Op slots are reused; the ticket tells whether it is still the same
// op.
struct Dependency {
  const Op* op = nullptr;
  std::uint64_t ticket = 0;
  inline bool ended() const;
};

struct Op {
  shmgemm_command command;
  std::uint64_t ticket = 0;          // unique in its table while in flight, 0 when free
  Connection* connection = nullptr;  // null: it did not come from a host
  std::uint32_t slot = 0;            // of the connection
  Request* request = nullptr;        // the older record it was made of
  std::byte* data = nullptr;         // of a READ or WRITE, the host's side
  bool alarm_set = false;            // an event at the release time is on its way
  Values values = Values::kNone;
  model::Cycle start = 0;
  Dependency after;     // what the command names
  Dependency previous;  // the op before it in its stream
  Op* next_free = nullptr;
  Op* next_by_id = nullptr;
  Op* next_by_stream = nullptr;  // newest first
};

inline bool Dependency::ended() const { return op == nullptr || op->ticket != ticket; }

class OpTable {
 public:
  static constexpr std::uint32_t kOps = SHMGEMM_RING_SLOTS;

  OpTable() {
    for (Op& op : ops_) {
      op.next_free = free_;
      free_ = &op;
    }
  }

  bool empty() const { return in_flight_ == 0; }
  bool full() const { return in_flight_ == kOps; }
  bool owns(const Op* op) const { return op >= ops_.data() && op < ops_.data() + kOps; }

  Op* find(std::uint32_t id_low) const {
    for (Op* op = by_id_[id_low % kOps]; op != nullptr; op = op->next_by_id) {
      if (static_cast<std::uint32_t>(op->command.id) == id_low) return op;
    }
    return nullptr;
  }

  // There must be room. An op with id 0 is found by its stream alone.
  Op* add(const shmgemm_command& command, Connection* connection) {
    Op* op = free_;
    free_ = op->next_free;
    *op = Op{};
    op->command = command;
    op->ticket = ++tickets_;
    op->connection = connection;
    op->after = command.after == 0 ? Dependency{} : dependency(find(command.after));
    op->previous = dependency(last_of_stream(command.stream));
    if (command.id != 0) {
      push(by_id_[static_cast<std::uint32_t>(command.id) % kOps], op, &Op::next_by_id);
    }
    push(by_stream_[command.stream % kOps], op, &Op::next_by_stream);
    ++in_flight_;
    return op;
  }

  // An ended op; whoever waited for it sees so by its ticket.
  void remove(Op* op) {
    if (op->command.id != 0) {
      unlink(by_id_[static_cast<std::uint32_t>(op->command.id) % kOps], op, &Op::next_by_id);
    }
    unlink(by_stream_[op->command.stream % kOps], op, &Op::next_by_stream);
    op->ticket = 0;
    op->next_free = free_;
    free_ = op;
    --in_flight_;
  }

 private:
  static Dependency dependency(const Op* op) {
    return op == nullptr ? Dependency{} : Dependency{op, op->ticket};
  }

  Op* last_of_stream(std::uint32_t stream) const {
    for (Op* op = by_stream_[stream % kOps]; op != nullptr; op = op->next_by_stream) {
      if (op->command.stream == stream) return op;
    }
    return nullptr;
  }

  static void push(Op*& head, Op* op, Op* Op::* next) {
    op->*next = head;
    head = op;
  }

  static void unlink(Op*& head, Op* op, Op* Op::* next) {
    Op** at = &head;
    while (*at != op) at = &((*at)->*next);
    *at = op->*next;
  }

  std::array<Op, kOps> ops_;
  std::array<Op*, kOps> by_id_{};
  std::array<Op*, kOps> by_stream_{};
  Op* free_ = nullptr;
  std::uint64_t tickets_ = 0;
  std::uint32_t in_flight_ = 0;
};

}  // namespace shmgemm::engine
