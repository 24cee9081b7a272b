// A timing model: told to start a GEMM, it says later, in simulated time, that it ended and how its
// cycles were spent. It never sees values. A model is one .cpp file that registers itself by name
// with its parameter table (see registry.h).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "model/scheduler.h"

namespace shmgemm::model {

enum Level : unsigned { kScratchpad = 0, kMemory = 1, kLevels = 2 };
enum Operand : unsigned { kA = 0, kB = 1, kC = 2, kBias = 3, kOperands = 4 };
using Traffic = std::array<std::array<std::uint64_t, kOperands>, kLevels>;  // bytes

// Where an operand lies, for models that fetch it tile by tile.
struct Placement {
  std::uint64_t address = 0;      // bytes from byte 0 of the region
  std::uint64_t pitch_bytes = 0;  // from one stored row to the next
  std::uint64_t batch_stride_bytes = 0;
  bool transposed = false;
};

inline constexpr std::uint32_t kBiasBytes = 4;  // of one element: float32 or int32

struct GemmShape {
  std::uint64_t m = 0;
  std::uint64_t n = 0;
  std::uint64_t k = 0;
  std::uint64_t batch = 1;
  std::uint32_t input_bytes = 4;   // of one element of A and B
  std::uint32_t output_bytes = 4;  // of one element of C
  bool bias = false;
  bool accumulate = false;  // C is read as well as written
  bool timeline = false;    // somebody wants GemmTiming::timeline
  std::array<Placement, kOperands> placement{};
};

// What an interval of a timeline shows, and what its amount counts.
enum ActivityKind : std::uint32_t {
  kLoad = 0,     // from the request to its end; bytes
  kCompute = 1,  // an array at work; cycles in which operands stream
  kStore = 2,    // from the request to its end; bytes
  kStall = 3,    // an array that could work waits for memory; cycles
  kActivityKinds = 4
};

struct TimelineEntry {
  std::uint32_t core = 0;
  std::uint32_t kind = 0;  // ActivityKind
  Cycle start = 0;
  Cycle end = 0;
  std::uint64_t amount = 0;
};
inline constexpr std::size_t kTimelineEntries = 400;  // of one op, at most

// busy + fill_drain + memory_stall + dispatch = the cycles from start to done.
struct GemmTiming {
  Cycle busy = 0;
  Cycle fill_drain = 0;
  Cycle memory_stall = 0;
  Cycle dispatch = 0;
  std::uint64_t macs = 0;
  std::uint64_t folds = 0;
  double mapping_efficiency = 0;   // mean share of PEs a fold uses, 0..1
  double compute_utilization = 0;  // mean share of a fold's PE-cycles that multiply, 0..1
  Traffic read_bytes{};
  Traffic write_bytes{};
  std::vector<TimelineEntry> timeline;

  Cycle total() const { return busy + fill_drain + memory_stall + dispatch; }
};

// Lives at least as long as its events: destroy it after the event queue, or when the queue is
// empty.
class SHMGEMM_MODEL_API TimingModel {
 public:
  using Done = std::function<void(const GemmTiming&)>;

  virtual ~TimingModel() = default;
  // Begins a GEMM at scheduler.now(); calls `done` once, from the scheduler, at the cycle it ends.
  // One at a time, but `done` may start the next. Throws, and begins nothing: std::overflow_error
  // where the result would not fit in 63 bits, std::invalid_argument for a dimension of 0,
  // std::logic_error where one is running.
  virtual void start(const GemmShape& shape, Done done) = 0;
  virtual std::uint64_t peak_macs_per_cycle() const = 0;
  // How many consecutive terms of K the array sums before their sum goes to the accumulator; at
  // least 1. It fixes the order of additions (docs/numerics.md). Default: all of them.
  virtual std::uint64_t accumulation_length(const GemmShape& shape) const { return shape.k; }
  // Whether a GEMM of one shape always has the same timing: whatever came before it, whenever it
  // starts and wherever its operands lie. Then whoever asks again need not be told again.
  virtual bool repeats() const { return false; }
};

}  // namespace shmgemm::model
