// The edge of the array. A sequencer decides what enters row 0 and column 0 in a cycle, by what it
// has seen enter, not by the closed forms; row i and column j get the same i and j cycles later.
#include "model/pe_array.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace shmgemm::model {
namespace {

// What enters row 0 (or the top of column 0) in one cycle: step `step` of tile `tile`.
struct Entry {
  std::size_t tile;
  std::uint64_t step;
};

// All entries so far, by cycle: a skewed line reads what the first one had `delay` cycles ago.
class Line {
 public:
  void enter(const std::optional<Entry>& entry) { entries_.push_back(entry); }
  std::optional<Entry> at(Cycle cycle, std::uint64_t delay) const {
    return cycle < delay ? std::nullopt : entries_[cycle - delay];
  }

 private:
  std::vector<std::optional<Entry>> entries_;
};

// Where element (step, lane) of an operand lies.
template <typename Input>
struct View {
  const std::vector<Input>& values;
  std::uint64_t step_stride, lane_stride;
  Input at(std::uint64_t step, std::uint64_t lane) const {
    return values[step * step_stride + lane * lane_stride];
  }
};

template <typename Sum>
Sum leaving(Sum sum) {
  if constexpr (std::is_floating_point_v<Sum>) {
    if (sum != sum) return std::numeric_limits<Sum>::quiet_NaN();
  }
  return sum;
}

// Takes results off the columns. Each column's come in the order of tiles, so it needs only count.
template <typename Arithmetic>
class Collector {
 public:
  using Sum = typename Arithmetic::Sum;
  using Run = ArrayRun<Arithmetic>;

  Collector(Dataflow dataflow, const std::vector<ArrayTile<Arithmetic>>& tiles,
            const std::vector<TileShape>& shapes, std::uint64_t columns, Run& run)
      : dataflow_(dataflow),
        tiles_(tiles),
        shapes_(shapes),
        next_(columns, Entry{0, 0}),
        run_(run) {
    for (std::size_t i = 0; i < tiles.size(); ++i) {
      run.tiles[i].c.resize(tiles[i].m * tiles[i].n);
      run.tiles[i].first_result = std::numeric_limits<Cycle>::max();
      missing_ += run.tiles[i].c.size();
    }
  }

  bool complete() const { return missing_ == 0; }

  // An output seen in `cycle` was written by the edge that closed the cycle before.
  void take(Cycle cycle, std::uint64_t column, const ColumnOutput<Sum>& output) {
    if (!output.valid) return;
    Entry& entry = next_[column];
    if (dataflow_ == Dataflow::kOutputStationary) {
      while (column >= shapes_.at(entry.tile).columns) ++entry.tile;  // put nothing in this column
    }
    const TileShape& shape = shapes_.at(entry.tile);
    if (column < shape.columns) keep(cycle - 1, entry, column, output.sum);
    if (++entry.step == steps(shape)) entry = {entry.tile + 1, 0};
  }

 private:
  std::uint64_t steps(const TileShape& shape) const {
    return dataflow_ == Dataflow::kOutputStationary ? shape.rows : shape.stream;
  }

  std::uint64_t index(const Entry& entry, std::uint64_t column) const {
    const std::uint64_t n = tiles_[entry.tile].n;
    switch (dataflow_) {
      case Dataflow::kWeightStationary:
        return entry.step * n + column;
      case Dataflow::kInputStationary:
        return column * n + entry.step;
      case Dataflow::kOutputStationary:  // the bottom row first
        return (shapes_[entry.tile].rows - 1 - entry.step) * n + column;
    }
    throw std::logic_error("unknown dataflow");
  }

  void keep(Cycle written, const Entry& entry, std::uint64_t column, Sum sum) {
    TileRun<Arithmetic>& tile = run_.tiles[entry.tile];
    tile.c[index(entry, column)] = leaving(sum);
    tile.first_result = std::min(tile.first_result, written);
    tile.last_result = std::max(tile.last_result, written);
    run_.cycles = std::max(run_.cycles, written + 1);
    --missing_;
  }

  Dataflow dataflow_;
  const std::vector<ArrayTile<Arithmetic>>& tiles_;
  const std::vector<TileShape>& shapes_;
  std::vector<Entry> next_;
  Run& run_;
  std::uint64_t missing_ = 0;
};

// Enters tiles one after the other, a step a cycle; `allowed` says whether tile i may begin now.
class Sequencer {
 public:
  explicit Sequencer(std::size_t tiles) : tiles_(tiles) {}

  template <typename Allowed>
  std::optional<Entry> next(std::uint64_t steps_of_tile, const Allowed& allowed) {
    if (tile_ == tiles_ || (step_ == 0 && !allowed(tile_))) return std::nullopt;
    const Entry entry{tile_, step_};
    if (++step_ == steps_of_tile) {
      step_ = 0;
      ++tile_;
    }
    return entry;
  }
  std::size_t tile() const { return std::min(tile_, tiles_ - 1); }
  std::size_t finished() const { return tile_; }  // tiles wholly entered

 private:
  std::size_t tiles_;
  std::size_t tile_ = 0;
  std::uint64_t step_ = 0;
};

template <typename Arithmetic>
struct Burst {
  Dataflow dataflow;
  ArraySize size;
  const std::vector<ArrayTile<Arithmetic>>& tiles;
  std::vector<TileShape> shapes;
  const typename PeArray<Arithmetic>::Observer& observer;

  Cycle limit() const {  // far beyond any right end
    Cycle limit = 2 * size.rows + size.columns;
    for (const TileShape& shape : shapes) limit += 2 * (shape.stream + shape.rows + shape.columns);
    return limit;
  }
};

// --- ws and is: the stationary operand loads while the former tile streams

template <typename Arithmetic>
class WeightFeeder {
 public:
  using Input = typename Arithmetic::Input;
  using Grid = WeightGrid<Arithmetic>;

  explicit WeightFeeder(const Burst<Arithmetic>& burst)
      : burst_(burst), loads_(burst.tiles.size()), streams_(burst.tiles.size()) {}

  typename Grid::Ports ports(Cycle cycle, ArrayRun<Arithmetic>& run) {
    // Loaded by earlier cycles; the shadow is free from the cycle in which its tile begins.
    const std::size_t loaded = loads_.finished();
    const auto streamed = streams_.next(burst_.shapes[streams_.tile()].stream,
                                        [&](std::size_t tile) { return tile < loaded; });
    if (streamed && streamed->step == 0) {
      ++begun_;
      run.tiles[streamed->tile].first_input = cycle;
    }
    const auto load = loads_.next(burst_.shapes[loads_.tile()].rows,
                                  [&](std::size_t tile) { return tile <= begun_; });
    if (load && load->step == 0) run.tiles[load->tile].first_load = cycle;
    if (load) run.tiles[load->tile].last_load = cycle;
    stream_line_.enter(streamed);
    load_line_.enter(load);
    return skewed(cycle);
  }

 private:
  View<Input> streamed_operand(std::size_t tile) const {  // (step, row)
    const ArrayTile<Arithmetic>& t = burst_.tiles[tile];
    if (burst_.dataflow == Dataflow::kInputStationary) return {t.b, 1, t.n};
    return {t.a, t.k, 1};
  }
  View<Input> stationary_operand(std::size_t tile) const {  // (row, column)
    const ArrayTile<Arithmetic>& t = burst_.tiles[tile];
    if (burst_.dataflow == Dataflow::kInputStationary) return {t.a, 1, t.k};
    return {t.b, t.n, 1};
  }

  typename Grid::Ports skewed(Cycle cycle) const {
    typename Grid::Ports ports{std::vector<typename Grid::Moving>(burst_.size.rows),
                               std::vector<typename Grid::Load>(burst_.size.columns)};
    for (std::uint64_t i = 0; i < burst_.size.rows; ++i) {
      const auto entry = stream_line_.at(cycle, i);
      if (!entry || i >= burst_.shapes[entry->tile].rows) continue;
      ports.rows[i] = {streamed_operand(entry->tile).at(entry->step, i), true, entry->step == 0};
    }
    for (std::uint64_t j = 0; j < burst_.size.columns; ++j) {
      const auto entry = load_line_.at(cycle, j);
      if (!entry || j >= burst_.shapes[entry->tile].columns) continue;
      const std::uint64_t row = burst_.shapes[entry->tile].rows - 1 - entry->step;
      ports.columns[j] = {stationary_operand(entry->tile).at(row, j), true, entry->step == 0};
    }
    return ports;
  }

  const Burst<Arithmetic>& burst_;
  Sequencer loads_, streams_;
  std::size_t begun_ = 0;
  Line load_line_, stream_line_;
};

template <typename Arithmetic>
void run_weights(const Burst<Arithmetic>& burst, Collector<Arithmetic>& collector,
                 ArrayRun<Arithmetic>& run) {
  WeightGrid<Arithmetic> grid(burst.size.rows, burst.size.columns);
  WeightFeeder<Arithmetic> feeder(burst);
  for (Cycle cycle = 0; !collector.complete(); ++cycle) {
    if (cycle > burst.limit()) throw std::logic_error("the array never finishes");
    const auto ports = feeder.ports(cycle, run);
    if (burst.observer.weights) burst.observer.weights(cycle, grid, ports);
    for (std::uint64_t j = 0; j < burst.size.columns; ++j) {
      collector.take(cycle, j, grid.output(j));
    }
    grid.clock(ports);
  }
}

// --- os: results drain while the next tile streams

template <typename Arithmetic>
class OutputFeeder {
 public:
  using Grid = OutputGrid<Arithmetic>;

  explicit OutputFeeder(const Burst<Arithmetic>& burst)
      : burst_(burst), streams_(burst.tiles.size()) {}

  typename Grid::Ports ports(Cycle cycle, ArrayRun<Arithmetic>& run) {
    const std::size_t tile = streams_.tile();
    const std::uint64_t steps = burst_.shapes[tile].stream;
    // Row 0 must not make a result before that of the former tile is free to move.
    const auto streamed = streams_.next(
        steps, [&](std::size_t) { return cycle + steps - 1 >= results_of_row_0_free_; });
    std::optional<Entry> releases;
    if (tile_to_release_ && cycle == release_) releases = Entry{*tile_to_release_, 0};
    release_line_.enter(releases);
    if (streamed && streamed->step == 0) run.tiles[tile].first_input = cycle;
    if (streamed && streamed->step + 1 == steps) {
      // The last row, r - 1, makes its result r - 1 cycles from now.
      release_ = results_of_row_0_free_ = cycle + burst_.shapes[tile].rows;
      tile_to_release_ = tile;
    }
    stream_line_.enter(streamed);
    return skewed(cycle);
  }

 private:
  typename Grid::Ports skewed(Cycle cycle) const {
    typename Grid::Ports ports{std::vector<typename Grid::Moving>(burst_.size.rows),
                               std::vector<typename Grid::Falling>(burst_.size.columns),
                               std::vector<bool>(burst_.size.columns)};
    for (std::uint64_t i = 0; i < burst_.size.rows; ++i) {
      const auto entry = stream_line_.at(cycle, i);
      if (!entry || i >= burst_.shapes[entry->tile].rows) continue;
      const ArrayTile<Arithmetic>& tile = burst_.tiles[entry->tile];
      ports.rows[i] = {tile.a[i * tile.k + entry->step], true, entry->step == 0,
                       entry->step + 1 == tile.k};
    }
    for (std::uint64_t j = 0; j < burst_.size.columns; ++j) {
      ports.release[j] = release_line_.at(cycle, j).has_value();
      const auto entry = stream_line_.at(cycle, j);
      if (!entry || j >= burst_.shapes[entry->tile].columns) continue;
      const ArrayTile<Arithmetic>& tile = burst_.tiles[entry->tile];
      ports.columns[j] = {tile.b[entry->step * tile.n + j], true};
    }
    return ports;
  }

  const Burst<Arithmetic>& burst_;
  Sequencer streams_;
  Cycle results_of_row_0_free_ = 0;
  Cycle release_ = 0;
  std::optional<std::size_t> tile_to_release_;
  Line stream_line_, release_line_;
};

template <typename Arithmetic>
void run_outputs(const Burst<Arithmetic>& burst, Collector<Arithmetic>& collector,
                 ArrayRun<Arithmetic>& run) {
  OutputGrid<Arithmetic> grid(burst.size.rows, burst.size.columns);
  OutputFeeder<Arithmetic> feeder(burst);
  for (Cycle cycle = 0; !collector.complete(); ++cycle) {
    if (cycle > burst.limit()) throw std::logic_error("the array never finishes");
    const auto ports = feeder.ports(cycle, run);
    if (burst.observer.outputs) burst.observer.outputs(cycle, grid, ports);
    for (std::uint64_t j = 0; j < burst.size.columns; ++j) {
      collector.take(cycle, j, grid.output(j, ports));
    }
    grid.clock(ports);
  }
}

}  // namespace

template <typename Arithmetic>
PeArray<Arithmetic>::PeArray(Dataflow dataflow, ArraySize size) : dataflow_(dataflow), size_(size) {
  if (size.rows == 0 || size.columns == 0 || size.rows > kMaxSide || size.columns > kMaxSide) {
    throw std::invalid_argument(
        "array of " + std::to_string(size.rows) + "x" + std::to_string(size.columns) +
        " PEs: rows and columns must be from 1 to " + std::to_string(kMaxSide));
  }
}

template <typename Arithmetic>
void PeArray<Arithmetic>::check(const std::vector<Tile>& tiles) const {
  for (const Tile& tile : tiles) {
    const TileShape shape = tile_shape(dataflow_, tile.m, tile.n, tile.k);
    tile_timing(dataflow_, size_, shape);
    if (shape.stream > kMaxStream) {
      throw std::invalid_argument("stream of " + std::to_string(shape.stream) + ": at most " +
                                  std::to_string(kMaxStream));
    }
    if (tile.a.size() != tile.m * tile.k || tile.b.size() != tile.k * tile.n) {
      throw std::invalid_argument("tile of m=" + std::to_string(tile.m) +
                                  " n=" + std::to_string(tile.n) + " k=" + std::to_string(tile.k) +
                                  " with " + std::to_string(tile.a.size()) + " elements of A and " +
                                  std::to_string(tile.b.size()) + " of B");
    }
  }
}

template <typename Arithmetic>
ArrayRun<Arithmetic> PeArray<Arithmetic>::run(const std::vector<Tile>& tiles,
                                              const Observer& observer) const {
  check(tiles);
  Run run;
  run.tiles.resize(tiles.size());
  Burst<Arithmetic> burst{dataflow_, size_, tiles, {}, observer};
  for (const Tile& tile : tiles) {
    burst.shapes.push_back(tile_shape(dataflow_, tile.m, tile.n, tile.k));
  }
  Collector<Arithmetic> collector(dataflow_, tiles, burst.shapes, size_.columns, run);
  if (dataflow_ == Dataflow::kOutputStationary) {
    run_outputs(burst, collector, run);
  } else {
    run_weights(burst, collector, run);
  }
  return run;
}

template class PeArray<Float32Arithmetic>;
template class PeArray<Int8Arithmetic>;

}  // namespace shmgemm::model
