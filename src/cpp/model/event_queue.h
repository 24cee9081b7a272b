// Simulated time: a binary heap of callbacks, keyed by (time, order of insertion). Callbacks may
// add events, also at the present cycle. Who owns the queue pumps it: the embedded engine in a
// loop, the SST element one self-link event at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "model/scheduler.h"

namespace shmgemm::model {

class EventQueue final : public Scheduler {
 public:
  Cycle now() const override { return now_; }
  // std::logic_error for a time before now().
  void at(Cycle time, std::function<void()> callback) override { at(time, std::move(callback), 0); }
  // The event of `owner`, a number above 0 that somebody chose for what it schedules.
  void at(Cycle time, std::function<void()> callback, std::uint32_t owner);
  void cancel(std::uint32_t owner);  // drops its events

  bool empty() const { return heap_.empty(); }
  std::size_t size() const { return heap_.size(); }
  Cycle next_time() const;           // std::logic_error where the queue is empty, as the next one
  std::uint32_t next_owner() const;  // 0: nobody's
  void run_next();                   // moves now() to next_time() and runs that one event
  // For time that passes outside the queue (a memory response from SST). std::logic_error for a
  // time before now() or after next_time().
  void advance_to(Cycle time);

 private:
  // Callbacks stay put in slots_ while these small keys move about the heap.
  struct Key {
    Cycle time;
    std::uint64_t order;
    std::uint32_t slot;
    std::uint32_t owner;
  };
  static bool later(const Key& a, const Key& b) {
    return a.time != b.time ? a.time > b.time : a.order > b.order;
  }

  const Key& next() const;

  Cycle now_ = 0;
  std::uint64_t inserted_ = 0;
  std::vector<Key> heap_;
  std::vector<std::function<void()>> slots_;
  std::vector<std::uint32_t> free_slots_;
};

}  // namespace shmgemm::model
