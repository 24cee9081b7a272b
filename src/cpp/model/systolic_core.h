// One core of the model `systolic` at work on its blocks of a GEMM: the DMA engine makes loads as
// halves of the scratchpads get free, the arrays take a step when its tiles are there, the results
// of a block go out while the next one is worked on. Specified in docs/systolic.md.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "model/machine.h"
#include "model/mapping.h"
#include "model/memory.h"
#include "model/step_timing.h"
#include "model/timeline.h"
#include "model/timing_model.h"

namespace shmgemm::model {

// What all cores of an op share.
struct SystolicOp {
  SystolicOp(const Machine& machine, const GemmShape& shape);
  const StepTiming& step(bool last_m, bool last_n, bool last_k) const;

  GemmShape shape;
  Mapping mapping;

 private:
  std::array<StepTiming, 8> steps_;  // by which of m, n, k is the last
};

class SystolicCore {
 public:
  struct Totals {
    Cycle end = 0;  // its last store's
    Cycle busy = 0;
    Cycle stall = 0;
    Cycle occupancy = 0;
    std::uint64_t folds = 0, used_pes = 0;
    std::uint64_t reads_a = 0, reads_b = 0, writes_c = 0;  // elements, scratchpads and accumulator
    Traffic read_bytes{}, write_bytes{};                   // kMemory only
  };

  // `issue` asks for a call of issue() later in the present cycle; `ended` says that the last store
  // is done.
  SystolicCore(std::uint64_t index, const Machine& machine, Scheduler& scheduler, Memory& memory,
               std::function<void()> issue, std::function<void()> ended);
  SystolicCore(const SystolicCore&) = delete;
  SystolicCore& operator=(const SystolicCore&) = delete;

  // Begins `count` blocks from number `first` on, at scheduler.now(). `op` lives until it ended;
  // so does `timeline`, where there is one.
  void start(const SystolicOp& op, std::uint64_t first, std::uint64_t count, Timeline* timeline);
  // Makes the requests that can be made now: stores, then loads.
  void issue();
  const Totals& totals() const { return totals_; }

 private:
  // A tile by its place in the matrix; equal places hold equal bytes.
  struct Tile {
    std::uint64_t entry = 0, side = 0, k = 0;
    bool operator==(const Tile& other) const {
      return entry == other.entry && side == other.side && k == other.k;
    }
  };
  // One step, by its number on this core.
  struct Place {
    std::uint64_t step = 0;
    std::uint64_t block = 0;  // of this core
    std::uint64_t k = 0;
    BlockPlace at{};
  };
  // A scratchpad: which load each half holds, and until when it is in use.
  struct Scratchpad {
    std::uint64_t loads = 0;
    Tile last;
    struct Half {
      bool used = false;
      std::uint64_t last_user = 0;  // the step that is the last to use it so far
      Cycle free_at = 0;            // once that step has begun
      Cycle alarm = 0;              // an event is on its way for this time
    };
    std::array<Half, 2> halves;
  };
  // What a step waits for. A ring: the DMA engine is never kAhead steps ahead. Only a run of steps
  // without any load could take it further, and there is nothing behind such a run.
  struct Wait {
    std::uint32_t missing = 0;  // loads requested and not done, + 1 while not all are requested
    const StepTiming* timing = nullptr;
    std::uint64_t block = 0;
    bool last_of_block = false;
  };
  static constexpr std::uint64_t kAhead = 8;

  Place next_place(const Place& place) const;
  const StepTiming& timing_of(const Place& place) const;
  Wait& wait_of(std::uint64_t step) { return waits_[step % kAhead]; }

  void issue_stores();
  void issue_loads();
  bool issue_step();
  bool issue_tile(Operand operand, Scratchpad& pad, const Tile& tile);
  bool half_is_free(Scratchpad& pad);
  bool half_of_c_is_free(std::uint64_t block) const { return block < stores_done_ + 2; }
  bool issue_c();
  void load(Operand operand, const Extent& extent, std::uint64_t step);
  void loaded(std::uint64_t step);
  void begin_steps();
  void begin_step(const Wait& wait);
  Cycle account_wait(Cycle now, const StepTiming& step);
  void store(std::uint64_t block);
  void block_ended(std::uint64_t block);
  void stored(std::uint64_t block, Cycle requested, std::uint64_t bytes);
  void show(ActivityKind kind, Cycle start, Cycle end, std::uint64_t amount) {
    if (timeline_ != nullptr) timeline_->add(index_, kind, start, end, amount);
  }

  Extent tile_extent(Operand operand, std::uint64_t entry, std::uint64_t row, std::uint64_t column,
                     std::uint64_t rows, std::uint64_t columns, std::uint32_t element_bytes) const;

  const std::uint64_t index_;
  const Machine& machine_;
  Scheduler& scheduler_;
  Memory& memory_;
  const std::function<void()> issue_;
  const std::function<void()> ended_;

  const SystolicOp* op_ = nullptr;
  Timeline* timeline_ = nullptr;
  std::uint64_t first_ = 0, count_ = 0, steps_ = 0;
  Cycle began_ = 0;

  Place dma_;  // the step whose loads are made next
  unsigned dma_stage_ = 0;
  Scratchpad a_, b_;
  std::array<Wait, kAhead> waits_{};

  std::uint64_t begun_ = 0;  // steps
  const StepTiming* last_ = nullptr;
  Cycle last_begin_ = 0;  // of the last begun step's last array tile
  Cycle latest_end_ = 0;  // of the steps begun so far: a narrow block may end before the one before

  // Of the two blocks from number stores_done_ on, by half of the accumulator.
  enum class Results { kIncomplete, kComplete, kLeaving, kStored };
  std::array<Results, 2> results_{};
  std::uint64_t stores_done_ = 0;  // and of all blocks before
  Totals totals_;
};

}  // namespace shmgemm::model
