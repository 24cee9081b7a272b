#include "model/step_timing.h"

#include <algorithm>
#include <limits>

#include "model/checked.h"

namespace shmgemm::model {
namespace {

// A part of a tile as its array works it off: groups of rows and columns of PEs.
struct Groups {
  Groups(const Machine& machine, std::uint64_t m, std::uint64_t n, std::uint64_t k)
      : whole(tile_shape(machine.dataflow, m, n, k)),
        rows(divide_up(whole.rows, machine.array.rows)),
        columns(divide_up(whole.columns, machine.array.columns)),
        first_rows(std::min(whole.rows, machine.array.rows)),
        last_rows(whole.rows - (rows - 1) * machine.array.rows),
        last_columns(whole.columns - (columns - 1) * machine.array.columns) {}

  // Of one column group.
  Cycle group_occupancy() const {
    return checked_add(checked_multiply(rows - 1, std::max(whole.stream, first_rows)),
                       std::max(whole.stream, last_rows));
  }

  TileShape whole;
  std::uint64_t rows, columns;  // how many groups
  std::uint64_t first_rows, last_rows;
  std::uint64_t last_columns;
};

Groups largest_part(const Machine& machine, TileSize tile, Parts parts) {
  return {machine, divide_up(tile.m, parts.m), divide_up(tile.n, parts.n), tile.k};
}

// From the begin of the last array tile to the last result of any. A tile before it matters where
// it has more columns (the last of the column group before) or, for os, more rows.
Cycle last_result(const Machine& machine, const Groups& groups) {
  const auto rows = machine.array.rows, columns = machine.array.columns;
  const Cycle stream = groups.whole.stream;
  const bool outputs_stay = machine.dataflow == Dataflow::kOutputStationary;
  const auto result = [&](std::uint64_t r, std::uint64_t c, Cycle earlier) {
    const Cycle length = outputs_stay ? stream + r + rows + c - 3 : stream + rows + c - 2;
    return static_cast<std::int64_t>(length) - static_cast<std::int64_t>(earlier);
  };
  const Cycle row_interval = std::max(stream, groups.first_rows);
  const Cycle group = groups.group_occupancy();
  std::int64_t latest = result(groups.last_rows, groups.last_columns, 0);
  if (groups.rows > 1) {
    latest =
        std::max(latest, result(rows, groups.last_columns,
                                outputs_stay ? row_interval : std::max(stream, groups.last_rows)));
  }
  if (groups.columns > 1) {
    latest = std::max(latest, result(groups.last_rows, columns, group));
    if (groups.rows > 1) {
      latest = std::max(latest, result(rows, columns, group + row_interval));
    }
  }
  return static_cast<Cycle>(latest);
}

void add_part(const Machine& machine, const Groups& groups, std::uint64_t count, StepTiming& step) {
  const TileShape& whole = groups.whole;
  const std::uint64_t stationary = whole.rows * whole.columns;
  const std::uint64_t from_left = checked_multiply(whole.rows, whole.stream, groups.columns);
  step.folds += count * groups.rows * groups.columns;
  step.used_pes += count * stationary;
  switch (machine.dataflow) {
    case Dataflow::kWeightStationary:
      step.reads_a += count * from_left;
      step.reads_b += count * stationary;
      step.writes_c += count * whole.stream * whole.columns * groups.rows;
      return;
    case Dataflow::kInputStationary:
      step.reads_a += count * stationary;
      step.reads_b += count * from_left;
      step.writes_c += count * whole.stream * whole.columns * groups.rows;
      return;
    case Dataflow::kOutputStationary:
      step.reads_a += count * from_left;
      step.reads_b += count * whole.columns * whole.stream * groups.rows;
      step.writes_c += count * stationary;
      return;
  }
}

// Pieces of a side: all but the last are equal.
struct Pieces {
  Pieces(std::uint64_t side, std::uint64_t parts)
      : size(divide_up(side, parts)),
        count(divide_up(side, size)),
        last(side - (count - 1) * size) {}
  std::uint64_t size, count, last;
};

void add_parts(const Machine& machine, TileSize tile, Parts parts, StepTiming& step) {
  const Pieces m(tile.m, parts.m), n(tile.n, parts.n);
  const auto add = [&](std::uint64_t part_m, std::uint64_t part_n, std::uint64_t count) {
    if (count != 0) add_part(machine, {machine, part_m, part_n, tile.k}, count, step);
  };
  add(m.size, n.size, (m.count - 1) * (n.count - 1));
  add(m.size, n.last, m.count - 1);
  add(m.last, n.size, n.count - 1);
  add(m.last, n.last, 1);
}

}  // namespace

std::uint64_t occupancy(const Machine& machine, TileSize tile, Parts parts) {
  const Groups groups = largest_part(machine, tile, parts);
  return checked_multiply(groups.columns, groups.group_occupancy());
}

Parts best_parts(const Machine& machine, TileSize tile) {
  Parts best;
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  for (std::uint64_t n = machine.arrays; n > 0; --n) {
    const Parts parts{machine.arrays / n, n};
    const std::uint64_t cycles = occupancy(machine, tile, parts);
    if (cycles >= least) continue;
    least = cycles;
    best = parts;
  }
  return best;
}

StepTiming::StepTiming(const Machine& machine, TileSize size, Parts parts) : tile(size) {
  const Groups groups = largest_part(machine, size, parts);
  const auto [rows, columns] = machine.array;
  occupancy = model::occupancy(machine, size, parts);
  busy = checked_multiply(groups.rows, groups.columns, groups.whole.stream);
  stream = groups.whole.stream;
  first_rows = groups.first_rows;
  last_rows = groups.last_rows;
  const bool outputs_stay = machine.dataflow == Dataflow::kOutputStationary;
  last_begin = occupancy - std::max(stream, outputs_stay ? last_rows : first_rows);
  end = last_result(machine, groups);
  const Cycle free_left = stream + rows - 1;
  const Cycle free_top = outputs_stay ? stream + columns - 1 : columns - 1;
  const bool a_from_left = machine.dataflow != Dataflow::kInputStationary;
  free_a = a_from_left ? free_left : free_top;
  free_b = a_from_left ? free_top : free_left;
  add_parts(machine, size, parts, *this);
}

Cycle step_interval(Dataflow dataflow, const StepTiming& last, const StepTiming& next) {
  if (dataflow != Dataflow::kOutputStationary) return std::max(last.stream, next.first_rows);
  return std::max(last.stream, last.stream + last.last_rows -
                                   std::min(next.stream, last.stream + last.last_rows));
}

}  // namespace shmgemm::model
