// What one timing model sees of the event queue. Its events carry its device's number, so that the
// engine knows whose event threw; once closed, the model is never called again.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "model/event_queue.h"
#include "model/supervision.h"

namespace shmgemm::engine {

// Simulated time ends here at the latest, and nothing is accepted past it, so that no sum of cycles
// can wrap.
inline constexpr model::Cycle kLastCycle = model::Cycle{1} << 62;

class Lane final : public model::Scheduler {
 public:
  Lane(model::EventQueue& events, std::uint32_t owner, model::Cycle last)
      : events_(events), owner_(owner), last_(last) {}

  model::Cycle now() const override { return events_.now(); }
  void at(model::Cycle time, std::function<void()> callback) override {
    if (time > last_) {
      throw model::ModelError("event at cycle " + std::to_string(time) +
                              ": simulated time ends at cycle " + std::to_string(last_));
    }
    if (!closed_) events_.at(time, std::move(callback), owner_);
  }
  void close() {
    closed_ = true;
    events_.cancel(owner_);
  }

 private:
  model::EventQueue& events_;
  const std::uint32_t owner_;
  const model::Cycle last_;
  bool closed_ = false;
};

}  // namespace shmgemm::engine
