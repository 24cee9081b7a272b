// The heap of event_queue.h. Slots are reused, so a queue that has reached its working size
// allocates nothing more but what a large callback needs for itself.
#include "model/event_queue.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace shmgemm::model {

void EventQueue::at(Cycle time, std::function<void()> callback, std::uint32_t owner) {
  if (time < now_) {
    throw std::logic_error("event at cycle " + std::to_string(time) + " lies before now, cycle " +
                           std::to_string(now_));
  }
  if (!callback) throw std::logic_error("event without a callback");
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const std::uint32_t slot = free_slots_.back();
  heap_.push_back({time, inserted_++, slot, owner});
  std::push_heap(heap_.begin(), heap_.end(), later);
  free_slots_.pop_back();
  slots_[slot] = std::move(callback);
}

const EventQueue::Key& EventQueue::next() const {
  if (heap_.empty()) throw std::logic_error("the event queue is empty, there is no next event");
  return heap_.front();
}

Cycle EventQueue::next_time() const { return next().time; }

std::uint32_t EventQueue::next_owner() const { return next().owner; }

void EventQueue::cancel(std::uint32_t owner) {
  std::vector<std::function<void()>> dropped;  // destroyed when the heap is in order again
  const auto is_dropped = [&](const Key& key) {
    if (key.owner != owner) return false;
    dropped.push_back(std::exchange(slots_[key.slot], nullptr));
    free_slots_.push_back(key.slot);
    return true;
  };
  heap_.erase(std::remove_if(heap_.begin(), heap_.end(), is_dropped), heap_.end());
  std::make_heap(heap_.begin(), heap_.end(), later);
}

void EventQueue::run_next() {
  now_ = next_time();
  const std::uint32_t slot = heap_.front().slot;
  std::pop_heap(heap_.begin(), heap_.end(), later);
  heap_.pop_back();
  const std::function<void()> callback = std::exchange(slots_[slot], nullptr);
  free_slots_.push_back(slot);
  callback();
}

void EventQueue::advance_to(Cycle time) {
  if (time < now_ || (!heap_.empty() && time > heap_.front().time)) {
    throw std::logic_error(
        "advance to cycle " + std::to_string(time) + " from cycle " + std::to_string(now_) +
        (heap_.empty()
             ? std::string(" goes back")
             : " goes back or skips the event at cycle " + std::to_string(heap_.front().time)));
  }
  now_ = time;
}

}  // namespace shmgemm::model
