#include "model/systolic_core.h"

#include <algorithm>
#include <utility>

#include "model/checked.h"

namespace shmgemm::model {
namespace {

std::uint64_t edge(std::uint64_t whole, std::uint64_t tile, std::uint64_t tiles) {
  return whole - (tiles - 1) * tile;
}

}  // namespace

SystolicOp::SystolicOp(const Machine& machine, const GemmShape& given)
    : shape(given), mapping(machine, given) {
  const TileSize tile = mapping.tile;
  for (unsigned i = 0; i < steps_.size(); ++i) {
    const TileSize size{(i & 4) != 0 ? edge(shape.m, tile.m, mapping.m_tiles) : tile.m,
                        (i & 2) != 0 ? edge(shape.n, tile.n, mapping.n_tiles) : tile.n,
                        (i & 1) != 0 ? edge(shape.k, tile.k, mapping.k_steps) : tile.k};
    steps_[i] = StepTiming(machine, size, mapping.parts);
  }
}

const StepTiming& SystolicOp::step(bool last_m, bool last_n, bool last_k) const {
  return steps_[(last_m ? 4u : 0u) + (last_n ? 2u : 0u) + (last_k ? 1u : 0u)];
}

SystolicCore::SystolicCore(std::uint64_t index, const Machine& machine, Scheduler& scheduler,
                           Memory& memory, std::function<void()> issue, std::function<void()> ended)
    : index_(index),
      machine_(machine),
      scheduler_(scheduler),
      memory_(memory),
      issue_(std::move(issue)),
      ended_(std::move(ended)) {}

void SystolicCore::start(const SystolicOp& op, std::uint64_t first, std::uint64_t count,
                         Timeline* timeline) {
  op_ = &op;
  timeline_ = timeline;
  first_ = first;
  count_ = count;
  steps_ = checked_multiply(count, op.mapping.k_steps);
  began_ = scheduler_.now();
  dma_ = Place{0, 0, 0, block_place(op.mapping, first)};
  dma_stage_ = 0;
  a_ = b_ = Scratchpad{};
  begun_ = 0;
  last_ = nullptr;
  last_begin_ = latest_end_ = 0;
  results_ = {};
  stores_done_ = 0;
  totals_ = Totals{};
  wait_of(0) = Wait{1};
  issue_();
}

void SystolicCore::issue() {
  issue_stores();
  issue_loads();
}

SystolicCore::Place SystolicCore::next_place(const Place& place) const {
  Place next = place;
  ++next.step;
  if (++next.k == op_->mapping.k_steps) {
    next.k = 0;
    ++next.block;
    next.at = block_place(op_->mapping, first_ + next.block);
  }
  return next;
}

const StepTiming& SystolicCore::timing_of(const Place& place) const {
  const Mapping& mapping = op_->mapping;
  return op_->step(place.at.m + 1 == mapping.m_tiles, place.at.n + 1 == mapping.n_tiles,
                   place.k + 1 == mapping.k_steps);
}

// --- the DMA engine

void SystolicCore::issue_stores() {
  for (std::uint64_t block = stores_done_; block < stores_done_ + 2; ++block) {
    if (results_[block % 2] != Results::kComplete) continue;
    results_[block % 2] = Results::kLeaving;
    store(block);
  }
}

void SystolicCore::store(std::uint64_t block) {
  const Mapping& mapping = op_->mapping;
  const BlockPlace at = block_place(mapping, first_ + block);
  const TileSize tile =
      op_->step(at.m + 1 == mapping.m_tiles, at.n + 1 == mapping.n_tiles, false).tile;
  const Extent extent = tile_extent(kC, at.entry, at.m * mapping.tile.m, at.n * mapping.tile.n,
                                    tile.m, tile.n, op_->shape.output_bytes);
  const std::uint64_t bytes = extent.total_bytes();
  totals_.write_bytes[kMemory][kC] += bytes;
  memory_.write(extent, [this, block, requested = scheduler_.now(), bytes] {
    stored(block, requested, bytes);
  });
}

void SystolicCore::issue_loads() {
  while (dma_.step < steps_ && dma_.step + 1 < begun_ + kAhead && issue_step()) {
  }
}

// The loads of one step, as far as they can be made; true where all are.
bool SystolicCore::issue_step() {
  const bool shared_a = op_->shape.placement[kA].batch_stride_bytes == 0;
  const bool shared_b = op_->shape.placement[kB].batch_stride_bytes == 0;
  if (dma_stage_ == 0) {
    if (!issue_tile(kA, a_, {shared_a ? 0 : dma_.at.entry, dma_.at.m, dma_.k})) return false;
    dma_stage_ = 1;
  }
  if (dma_stage_ == 1) {
    if (!issue_tile(kB, b_, {shared_b ? 0 : dma_.at.entry, dma_.at.n, dma_.k})) return false;
    dma_stage_ = 2;
  }
  if (!issue_c()) return false;

  Wait& wait = wait_of(dma_.step);
  wait.timing = &timing_of(dma_);
  wait.block = dma_.block;
  wait.last_of_block = dma_.k + 1 == op_->mapping.k_steps;
  const std::uint64_t step = dma_.step;
  if (step + 1 < steps_) {
    dma_ = next_place(dma_);
  } else {
    dma_.step = steps_;
  }
  dma_stage_ = 0;
  wait_of(step + 1) = Wait{1};
  loaded(step);
  return true;
}

bool SystolicCore::issue_tile(Operand operand, Scratchpad& pad, const Tile& tile) {
  if (pad.loads == 0 || !(pad.last == tile)) {
    if (!half_is_free(pad)) return false;
    pad.halves[pad.loads % 2] = {true, dma_.step, 0, 0};
    ++pad.loads;
    pad.last = tile;
    const TileSize size = timing_of(dma_).tile;
    const TileSize whole = op_->mapping.tile;
    const std::uint32_t bytes = op_->shape.input_bytes;
    const Extent extent = operand == kA ? tile_extent(kA, dma_.at.entry, dma_.at.m * whole.m,
                                                      dma_.k * whole.k, size.m, size.k, bytes)
                                        : tile_extent(kB, dma_.at.entry, dma_.k * whole.k,
                                                      dma_.at.n * whole.n, size.k, size.n, bytes);
    load(operand, extent, dma_.step);
  } else {
    pad.halves[(pad.loads + 1) % 2].last_user = dma_.step;
  }
  return true;
}

// The half for the next load. Where its last user has begun, the time it is free at is known.
bool SystolicCore::half_is_free(Scratchpad& pad) {
  Scratchpad::Half& half = pad.halves[pad.loads % 2];
  if (!half.used) return true;
  if (half.last_user >= begun_) return false;
  if (half.free_at <= scheduler_.now()) return true;
  if (half.alarm != half.free_at) {
    half.alarm = half.free_at;
    scheduler_.at(half.free_at, [this] { issue_(); });
  }
  return false;
}

// C and bias of a block's first step.
bool SystolicCore::issue_c() {
  const GemmShape& shape = op_->shape;
  if (dma_.k != 0 || !(shape.accumulate || shape.bias)) return true;
  if (!half_of_c_is_free(dma_.block)) return false;
  const TileSize size = timing_of(dma_).tile;
  const std::uint64_t row = dma_.at.m * op_->mapping.tile.m,
                      column = dma_.at.n * op_->mapping.tile.n;
  if (shape.accumulate) {
    load(kC, tile_extent(kC, dma_.at.entry, row, column, size.m, size.n, shape.output_bytes),
         dma_.step);
  }
  if (shape.bias) {
    load(kBias, tile_extent(kBias, 0, 0, column, 1, size.n, kBiasBytes), dma_.step);
  }
  return true;
}

void SystolicCore::load(Operand operand, const Extent& extent, std::uint64_t step) {
  ++wait_of(step).missing;
  const std::uint64_t bytes = extent.total_bytes();
  totals_.read_bytes[kMemory][operand] += bytes;
  if (timeline_ == nullptr) {
    memory_.read(extent, [this, step] { loaded(step); });
    return;
  }
  memory_.read(extent, [this, step, bytes, requested = scheduler_.now()] {
    timeline_->add(index_, kLoad, requested, scheduler_.now(), bytes);
    loaded(step);
  });
}

Extent SystolicCore::tile_extent(Operand operand, std::uint64_t entry, std::uint64_t row,
                                 std::uint64_t column, std::uint64_t rows, std::uint64_t columns,
                                 std::uint32_t element_bytes) const {
  const Placement& placement = op_->shape.placement[operand];
  if (placement.transposed) {
    std::swap(row, column);
    std::swap(rows, columns);
  }
  Extent extent;
  extent.address = placement.address + entry * placement.batch_stride_bytes +
                   row * placement.pitch_bytes + column * element_bytes;
  extent.bytes = columns * element_bytes;
  extent.rows = rows;
  extent.pitch_bytes = placement.pitch_bytes;
  return extent;
}

// --- the arrays

void SystolicCore::loaded(std::uint64_t step) {
  --wait_of(step).missing;
  begin_steps();
}

// Steps begin in their order; each fixes when its operands' halves are free and when it ends.
void SystolicCore::begin_steps() {
  const std::uint64_t before = begun_;
  while (begun_ < steps_ && wait_of(begun_).missing == 0 &&
         half_of_c_is_free(wait_of(begun_).block)) {
    begin_step(wait_of(begun_));
    ++begun_;
  }
  if (begun_ != before) issue_();
}

void SystolicCore::begin_step(const Wait& wait) {
  const StepTiming& step = *wait.timing;
  const Cycle begin = account_wait(scheduler_.now(), step);
  last_ = &step;
  last_begin_ = checked_add(begin, step.last_begin);
  const Cycle end = checked_add(last_begin_, step.end);
  latest_end_ = std::max(latest_end_, end);
  for (unsigned half = 0; half < 2; ++half) {
    if (a_.halves[half].last_user == begun_) a_.halves[half].free_at = last_begin_ + step.free_a;
    if (b_.halves[half].last_user == begun_) b_.halves[half].free_at = last_begin_ + step.free_b;
  }
  show(kCompute, begin, end, step.busy);
  totals_.busy += step.busy;
  totals_.occupancy += step.occupancy;
  totals_.folds += step.folds;
  totals_.used_pes += step.used_pes;
  totals_.reads_a += step.reads_a;
  totals_.reads_b += step.reads_b;
  totals_.writes_c += step.writes_c;
  if (wait.last_of_block) {
    scheduler_.at(end, [this, block = wait.block] { block_ended(block); });
  }
}

// When the step's first array tile begins, given that the step is ready now.
Cycle SystolicCore::account_wait(Cycle now, const StepTiming& step) {
  const bool loads_first = machine_.dataflow != Dataflow::kOutputStationary;
  const Cycle ready = now + (loads_first ? step.first_rows : 0);
  if (last_ == nullptr) {
    totals_.stall += now - began_;
    show(kStall, began_, now, now - began_);
    return ready;
  }
  const Cycle possible = last_begin_ + step_interval(machine_.dataflow, *last_, step);
  const Cycle begin = std::max(ready, possible);
  totals_.stall += begin - possible;
  show(kStall, possible, begin, begin - possible);
  return begin;
}

// --- stores

void SystolicCore::block_ended(std::uint64_t block) {
  results_[block % 2] = Results::kComplete;
  issue_();
}

void SystolicCore::stored(std::uint64_t block, Cycle requested, std::uint64_t bytes) {
  const Cycle now = scheduler_.now();
  show(kStore, requested, now, bytes);
  results_[block % 2] = Results::kStored;
  while (results_[stores_done_ % 2] == Results::kStored) {
    results_[stores_done_ % 2] = Results::kIncomplete;
    ++stores_done_;
  }
  if (stores_done_ < count_) {
    begin_steps();
    issue_();
    return;
  }
  totals_.end = now;
  totals_.stall += now - latest_end_;
  show(kStall, latest_end_, now, now - latest_end_);
  ended_();
}

}  // namespace shmgemm::model
