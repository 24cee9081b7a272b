// The client's end of one way to an engine (port.h). It hands out ids, holds a credit for each
// command in flight, takes completions, checks them, and gives each to whoever waits. Any thread
// may call: one at a time submits, and of those that wait one reaps for all.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "abi/shmgemm_validate.h"
#include "client/deadline.h"
#include "client/heap.h"
#include "client/port.h"
#include "client/session.h"

namespace shmgemm::client {

enum class Failure { kLost, kTimeout, kProtocol, kClosed };

// What a command in flight belongs to when nobody waits for it any more: kept until its completion
// was reaped, told of that from whatever thread reaps, and let go.
class Orphan {
 public:
  virtual ~Orphan() = default;
  virtual void ended(const shmgemm_completion& completion) = 0;  // not called where it was lost
};

class Channel {
 public:
  using Deadline = client::Deadline;
  static constexpr Deadline kNoDeadline = client::kNoDeadline;

  explicit Channel(std::shared_ptr<Heap> heap);  // failed until begin()

  // Fills in id, generation and flush flag, publishes and wakes the engine. Blocks while there is
  // no credit. `pin`: the caller may forget it. The blocks that the command names are held until
  // its completion was reaped, and its slot until that was taken; of others a result that nobody
  // takes for long is set aside.
  std::uint64_t submit(shmgemm_command command, bool pin, Deadline deadline);
  // Several with one wake-up, at most kMostTogether; their ids are filled in.
  void submit(shmgemm_command* commands, std::size_t count, Deadline deadline);
  static constexpr std::size_t kMostTogether = SHMGEMM_FLUSH_EVERY;

  // Waits and takes the completion. Where it throws, nobody can ask for that command again.
  shmgemm_completion wait(std::uint64_t id, Deadline deadline, region::Expect expect);

  // The same in steps. A command has settled when it is answered, lost, or was taken.
  bool settled(std::uint64_t id);  // does not block; the first asks for a flush
  bool await(std::uint64_t id, Deadline deadline, region::Expect expect);  // false: deadline
  struct End {
    std::uint64_t cycles = 0;
    bool lost = false;
  };
  End end_of(std::uint64_t id);               // of one that has settled; zeros where it was taken
  shmgemm_completion take(std::uint64_t id);  // of one that has settled; throws where it was lost
  // Nobody will ask for it: `heir` is told.
  void abandon(std::uint64_t id, std::shared_ptr<Orphan> heir);

  // --- for the session's monitor -----------------------------------------------------------------
  // The engine is proved dead (or never answers again because it was killed): everything in flight
  // fails.
  void fail(Failure kind, const std::string& message);
  bool failed() const { return failure_flag_.load(std::memory_order_seq_cst); }
  // At first and after a failure.
  void begin(std::unique_ptr<Port> port, std::uint32_t generation);
  bool has_in_flight() const { return in_flight_.load(std::memory_order_relaxed) > 0; }
  void reap_abandoned();
  bool wait_until_unused(region::Nanoseconds limit);  // until no thread is inside wait()
  void set_on_nonsense(std::function<void()> kill_engine) { kill_engine_ = std::move(kill_engine); }
  std::uint64_t commands() const { return submitted_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kSlots = SHMGEMM_RING_SLOTS;
  static constexpr region::Nanoseconds kSlice{20'000'000};  // how often a blocked call looks up

  enum class State : std::uint8_t { kFree, kInFlight, kDone, kFailed };
  struct Slot {
    std::uint64_t id = 0;
    State state = State::kFree;
    bool abandoned = false;  // nobody will ask for the result
    bool flushed = false;
    bool keeps_slot = false;
    std::array<std::uint64_t, 5> named{};  // offsets of a, b, c, bias and report
    std::vector<std::uint64_t> pins;       // first bytes of blocks held
    std::shared_ptr<Orphan> heir;          // of an abandoned one; may be null
    shmgemm_completion completion{};
  };
  struct Result {
    shmgemm_completion completion{};
    bool failed = false;
  };
  using Lock = std::unique_lock<std::mutex>;

  Slot& slot_of(std::uint64_t id) { return slots_[id % kSlots]; }
  void await_credits(Lock& lock, std::size_t count, Deadline deadline);
  std::uint64_t publish(shmgemm_command command, bool pin, bool abandoned);
  bool set_results_aside();
  void flush_locked(std::uint64_t id);
  bool wait_once(Lock& lock, Deadline deadline, region::Expect expect);
  bool is_late(Lock& lock, Deadline deadline);
  void reap();
  void accept(const shmgemm_completion& completion);
  bool in_flight(std::uint64_t id);
  bool await_locked(Lock& lock, std::uint64_t id, Deadline deadline, region::Expect expect);
  shmgemm_completion take_locked(std::uint64_t id);
  void abandon_locked(std::uint64_t id, std::shared_ptr<Orphan> heir);
  void pin(Slot& slot);
  void unpin(Slot& slot);
  void free_slot(Slot& slot);
  void nonsense(const std::string& what);
  [[noreturn]] void throw_failure() const;

  std::shared_ptr<Heap> heap_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<Port> port_;
  shmgemm_limits limits_;
  std::vector<Slot> slots_{kSlots};
  std::vector<std::uint32_t> free_slots_;
  std::unordered_map<std::uint64_t, Result> set_aside_;  // untaken, by id; their slots are free
  std::uint64_t tickets_ = 0;                            // an id is ticket x slots + slot
  std::uint32_t unflushed_ = 0;
  std::uint32_t waiting_ = 0;  // threads inside wait() or submit()
  bool reaping_ = false;       // one of them is at the ring
  std::atomic<std::uint32_t> in_flight_{0};
  std::atomic<std::uint64_t> submitted_{0};
  std::atomic<bool> failure_flag_{true};
  Failure failure_ = Failure::kLost;
  std::string failure_text_ = "no engine runs";
  std::string nonsense_text_;
  std::function<void()> kill_engine_;
};

}  // namespace shmgemm::client
