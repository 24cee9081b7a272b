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
#include <vector>

#include "abi/shmgemm_validate.h"
#include "client/heap.h"
#include "client/port.h"
#include "client/session.h"
#include "region/waiter.h"

namespace shmgemm::client {

enum class Failure { kLost, kTimeout, kProtocol, kClosed };

class Channel {
 public:
  using Deadline = region::Clock::time_point;
  static constexpr Deadline kNoDeadline = Deadline::max();

  explicit Channel(std::shared_ptr<Heap> heap);  // failed until begin()

  // Fills in id, generation and flush flag, publishes and wakes the engine. Blocks while there is
  // no credit. `pin`: hold the blocks the command names until its completion was reaped; a caller
  // that holds them itself until wait() returns need not.
  std::uint64_t submit(shmgemm_command command, bool pin, Deadline deadline);
  shmgemm_completion wait(std::uint64_t id, Deadline deadline, region::Expect expect);

  // --- for the session's monitor -----------------------------------------------------------------
  // The engine is proved dead (or never answers again because it was killed): everything in flight
  // fails.
  void fail(Failure kind, const std::string& message);
  bool failed() const { return failure_flag_.load(std::memory_order_seq_cst); }
  void begin(std::unique_ptr<Port> port);  // at first and after a failure; of this generation
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
    std::array<std::uint64_t, 5> named{};  // offsets of a, b, c, bias and report
    std::vector<std::uint64_t> pins;       // first bytes of blocks held
    shmgemm_completion completion{};
  };
  using Lock = std::unique_lock<std::mutex>;

  Slot& slot_of(std::uint64_t id) { return slots_[id % kSlots]; }
  std::uint64_t publish(shmgemm_command command, bool pin, bool abandoned);
  void flush_locked(std::uint64_t id);
  void wait_once(Lock& lock, Deadline deadline, region::Expect expect);
  void look_up(Lock& lock, Deadline deadline);
  void reap();
  void accept(const shmgemm_completion& completion);
  void abandon(std::uint64_t id);
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
  std::uint64_t tickets_ = 0;  // an id is ticket x slots + slot
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
