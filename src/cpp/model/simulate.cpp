#include "model/simulate.h"

#include <string>

#include "model/event_queue.h"

namespace shmgemm::model {
namespace {

constexpr std::uint64_t kPauseEvery = 1 << 14;

ModelError failure(const Hardware& hardware, const GemmShape& shape, const std::string& why) {
  return ModelError("timing model \"" + hardware.model().name + "\", " + text_of(shape) + ": " +
                    why);
}

// One event, under supervision.
void step(const Hardware& hardware, const GemmShape& shape, EventQueue& queue,
          Supervision& supervision, const bool& ended) {
  if (queue.empty()) throw failure(hardware, shape, kNeverDone);
  try {
    queue.run_next();
    if (!ended) supervision.count_event(queue.now());
  } catch (...) {
    throw failure(hardware, shape, current_exception_text());
  }
}

}  // namespace

Simulated simulate(const Hardware& hardware, const GemmShape& shape,
                   const std::function<void()>& pause, EventLimits limits) {
  EventQueue queue;
  Supervision supervision(limits);
  Simulated result;
  bool ended = false;
  const auto device = hardware.create_model(queue, nullptr);
  supervision.begin(queue.now());
  const auto done = [&](const GemmTiming& timing) {
    supervision.check_end(timing, queue.now());
    result.timing = timing;
    ended = true;
  };
  try {
    result.peak_macs_per_cycle = device->peak_macs_per_cycle();
    device->start(shape, done);
  } catch (const std::overflow_error&) {
    throw;
  } catch (const std::invalid_argument&) {
    throw;
  } catch (...) {
    throw failure(hardware, shape, current_exception_text());
  }
  for (std::uint64_t event = 1; !ended; ++event) {
    step(hardware, shape, queue, supervision, ended);
    if (pause && event % kPauseEvery == 0) pause();
  }
  return result;
}

}  // namespace shmgemm::model
