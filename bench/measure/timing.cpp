// What a timing model costs for one GEMM: start, its events, its end, on a device made before, as
// in the engine. Beside it a bare event of the same queue.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "model/event_queue.h"
#include "model/hardware.h"
#include "subjects.h"

namespace shmgemm::measure {
namespace {

constexpr double kSampleUs = 20;        // reading the clock must not count
constexpr double kMostOfRoundUs = 1e5;  // then a round ends, with at least one sample

// Means of so many calls that a sample takes its time, at most `most` of them.
template <class Call>
Round time_batches(std::uint64_t most, Call&& call) {
  const double begin = now_us();
  call();
  const double once = std::max(now_us() - begin, 0.001);
  const auto batch = static_cast<std::uint64_t>(std::max(1.0, kSampleUs / once));
  std::vector<double> samples;
  while (samples.empty() || (samples.size() < most && now_us() - begin < kMostOfRoundUs)) {
    const double start = now_us();
    for (std::uint64_t i = 0; i < batch; ++i) call();
    samples.push_back((now_us() - start) / static_cast<double>(batch));
  }
  return round_of(std::move(samples));
}

}  // namespace

Results timing(const Options& options) {
  const model::Hardware hardware(options.hardware);
  model::EventQueue queue;
  const auto device = hardware.create_model(queue, nullptr);
  model::GemmShape shape;
  shape.m = options.m;
  shape.n = options.n;
  shape.k = options.k;
  const auto gemm = [&] {
    std::uint64_t macs = 0;
    bool ended = false;
    device->start(shape, [&](const model::GemmTiming& timing) {
      macs = timing.macs;
      ended = true;
    });
    while (!ended) queue.run_next();
    if (macs != shape.m * shape.n * shape.k) throw std::runtime_error("a timed GEMM is incomplete");
  };
  const auto event = [&] {
    bool ended = false;
    queue.at(queue.now() + 1, [&] { ended = true; });
    while (!ended) queue.run_next();
  };
  Results results;
  for (std::uint64_t round = 0; round < options.rounds; ++round) {
    results.ours(time_batches(options.samples, gemm));
    results.floor(time_batches(options.samples, event));
  }
  return results;
}

}  // namespace shmgemm::measure
