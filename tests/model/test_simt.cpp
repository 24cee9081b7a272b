// The formula against a machine that is stepped cycle by cycle, over random devices and shapes;
// against figures by hand; and what must never get slower.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "contains.h"
#include "model/event_queue.h"
#include "model/hardware.h"

namespace shmgemm::model {
namespace {

struct Device {
  std::uint64_t clock = 1000000000, cores = 128, bw = 900000000000, macs = 512;
  std::uint64_t tile_m = 128, tile_n = 128, tile_k = 32, dispatch = 1000;
};

Hardware hardware_of(const Device& device) {
  return Hardware({{"model", "simt"},
                   {"clock", std::to_string(device.clock) + "Hz"},
                   {"cores", std::to_string(device.cores)},
                   {"memory_bw", std::to_string(device.bw) + "B/s"},
                   {"macs_per_core", std::to_string(device.macs)},
                   {"tile_m", std::to_string(device.tile_m)},
                   {"tile_n", std::to_string(device.tile_n)},
                   {"tile_k", std::to_string(device.tile_k)},
                   {"dispatch", std::to_string(device.dispatch)}});
}

GemmTiming time_of(const Device& device, const GemmShape& shape, Cycle begin = 0) {
  EventQueue queue;
  queue.advance_to(begin);
  const auto model = hardware_of(device).create_model(queue, nullptr);
  GemmTiming result;
  int calls = 0;
  model->start(shape, [&](const GemmTiming& timing) {
    result = timing;
    ++calls;
    EXPECT_EQ(queue.now(), begin + timing.total());
  });
  while (!queue.empty()) queue.run_next();
  EXPECT_EQ(calls, 1);
  return result;
}

GemmShape shape_of(std::uint64_t m, std::uint64_t n, std::uint64_t k, std::uint64_t batch = 1) {
  GemmShape shape;
  shape.m = m;
  shape.n = n;
  shape.k = k;
  shape.batch = batch;
  return shape;
}

// The machine. A tile is the parameter's or, for a narrow product, the multiple of 16 around it.
std::uint64_t tile_for(std::uint64_t parameter, std::uint64_t extent) {
  std::uint64_t around = 16;
  while (around < extent) around += 16;
  return std::min(parameter, around);
}

// The tiles that the blocks of a wave work on in a step, each once: (entry of the batch, row or
// column of blocks).
struct Tiles {
  std::set<std::pair<std::uint64_t, std::uint64_t>> a, b;
};

// All patches the grid has room for are tried. Whole entries first, what is left over in a patch.
Tiles tiles_of(const Device& device, const GemmShape& shape, std::uint64_t blocks) {
  const std::uint64_t rows = tile_for(device.tile_m, shape.m);
  const std::uint64_t columns = tile_for(device.tile_n, shape.n);
  const std::uint64_t grid_m = (shape.m + rows - 1) / rows;
  const std::uint64_t grid_n = (shape.n + columns - 1) / columns;
  const auto bytes = [&](const Tiles& tiles) {
    return tiles.a.size() * std::min(rows, shape.m) + tiles.b.size() * std::min(columns, shape.n);
  };
  const std::uint64_t whole = blocks / (grid_m * grid_n);
  Tiles best;
  for (std::uint64_t width = 1; width <= grid_n; ++width) {
    Tiles tiles;
    bool fits = true;
    for (std::uint64_t block = 0; block < blocks; ++block) {
      const std::uint64_t entry = block / (grid_m * grid_n);
      const std::uint64_t in_entry = block % (grid_m * grid_n);
      const std::uint64_t across = entry < whole ? grid_n : width;
      tiles.a.emplace(entry, in_entry / across);
      tiles.b.emplace(entry, in_entry % across);
      fits = fits && in_entry / across < grid_m;
    }
    const bool smaller = best.a.empty() || bytes(tiles) < bytes(best) ||
                         (bytes(tiles) == bytes(best) && tiles.a.size() < best.a.size());
    if (fits && smaller) best = tiles;
  }
  return best;
}

// A transfer, of which each cycle brings the device's bytes per cycle. In units of 1 / clock bytes,
// so that nothing is rounded.
class Transfer {
 public:
  void begin(std::uint64_t bytes, const Device& device) {
    left_ = bytes * device.clock;
    a_cycle_ = device.bw;
  }
  bool done() const { return left_ == 0; }
  void step() { left_ -= std::min(left_, a_cycle_); }

 private:
  std::uint64_t left_ = 0, a_cycle_ = 0;
};

struct Stepped {
  std::uint64_t busy = 0, exposed = 0, stall = 0, waves = 0, macs = 0;
  std::uint64_t tiles_a = 0, tiles_b = 0;  // distinct ones of a wave's step, summed over waves
  std::uint64_t shared_a = 0, shared_b = 0, read_c = 0, written = 0;
  double used = 0;  // share of all matrix units at work on real elements of C, summed over waves
};

// `blocks` blocks in lock step: two buffers, one loaded, one worked on.
void step_wave(const Device& device, const GemmShape& shape, std::uint64_t blocks, Stepped& sum) {
  const std::uint64_t rows = tile_for(device.tile_m, shape.m);
  const std::uint64_t columns = tile_for(device.tile_n, shape.n);
  const std::uint64_t depth = tile_for(device.tile_k, shape.k);
  const std::uint64_t real_rows = std::min(rows, shape.m);
  const std::uint64_t real_columns = std::min(columns, shape.n);
  const Tiles tiles = tiles_of(device, shape, blocks);
  sum.tiles_a += tiles.a.size();
  sum.tiles_b += tiles.b.size();
  std::uint64_t loaded = 0;  // terms of K
  Transfer transfer;
  const auto load = [&] {
    const std::uint64_t terms = std::min(depth, shape.k - loaded);
    std::uint64_t elements = 0;
    for (std::size_t tile = 0; tile < tiles.a.size(); ++tile) elements += real_rows * terms;
    for (std::size_t tile = 0; tile < tiles.b.size(); ++tile) elements += terms * real_columns;
    transfer.begin(elements * shape.input_bytes, device);
    loaded += terms;
  };
  load();
  for (; !transfer.done(); transfer.step()) ++sum.exposed;
  for (bool more = true; more;) {
    more = loaded < shape.k;
    if (more) load();
    std::uint64_t macs = rows * columns * depth;
    while (macs > 0 || !transfer.done()) {
      ++(macs > 0 ? sum.busy : sum.stall);
      macs -= std::min(macs, device.macs);
      transfer.step();
    }
  }
  std::uint64_t epilogue = blocks * real_rows * real_columns * shape.output_bytes;
  if (shape.accumulate) epilogue += blocks * real_rows * real_columns * shape.output_bytes;
  if (shape.bias) epilogue += tiles.b.size() * real_columns * 4;
  transfer.begin(epilogue, device);
  for (; !transfer.done(); transfer.step()) ++sum.exposed;
}

Stepped step(const Device& device, const GemmShape& shape) {
  Stepped sum;
  const std::uint64_t rows = tile_for(device.tile_m, shape.m);
  const std::uint64_t columns = tile_for(device.tile_n, shape.n);
  std::uint64_t waiting = 0;  // blocks of the wave that is being filled
  double elements = 0;
  const auto launch = [&] {
    step_wave(device, shape, waiting, sum);
    ++sum.waves;
    sum.used += elements / static_cast<double>(rows * columns * device.cores);
    waiting = 0;
    elements = 0;
  };
  for (std::uint64_t entry = 0; entry < shape.batch; ++entry) {
    for (std::uint64_t m = 0; m < shape.m; m += rows) {
      for (std::uint64_t n = 0; n < shape.n; n += columns) {
        const std::uint64_t height = std::min(rows, shape.m - m);
        const std::uint64_t width = std::min(columns, shape.n - n);
        sum.shared_a += height * shape.k * shape.input_bytes;
        sum.shared_b += width * shape.k * shape.input_bytes;
        sum.written += height * width * shape.output_bytes;
        if (shape.accumulate) sum.read_c += height * width * shape.output_bytes;
        sum.macs += height * width * shape.k;
        elements += static_cast<double>(height * width);
        if (++waiting == device.cores) launch();
      }
    }
  }
  if (waiting > 0) launch();
  return sum;
}

// Elements in so many tiles of length `tile`, all tiles along `extent` as often as each other.
std::uint64_t elements_of(std::uint64_t tiles, std::uint64_t extent, std::uint64_t tile) {
  const std::uint64_t grid = (extent + tile - 1) / tile;
  return (tiles * extent + grid - 1) / grid;
}

Traffic::value_type memory_reads(const Device& device, const GemmShape& shape, const Stepped& sum) {
  const std::uint64_t rows = elements_of(sum.tiles_a, shape.m, tile_for(device.tile_m, shape.m));
  const std::uint64_t columns = elements_of(sum.tiles_b, shape.n, tile_for(device.tile_n, shape.n));
  return {rows * shape.k * shape.input_bytes, columns * shape.k * shape.input_bytes, sum.read_c,
          shape.bias ? columns * 4 : 0};
}

void compare(const Device& device, const GemmShape& shape) {
  SCOPED_TRACE("GEMM " + std::to_string(shape.m) + "," + std::to_string(shape.n) + "," +
               std::to_string(shape.k) + " batch " + std::to_string(shape.batch) + " on " +
               std::to_string(device.cores) + " cores, " + std::to_string(device.bw) +
               " B/s, tile " + std::to_string(device.tile_m) + "," + std::to_string(device.tile_n) +
               "," + std::to_string(device.tile_k));
  const Stepped stepped = step(device, shape);
  const GemmTiming timing = time_of(device, shape);
  EXPECT_EQ(timing.busy, stepped.busy);
  EXPECT_EQ(timing.fill_drain, stepped.exposed);
  EXPECT_EQ(timing.memory_stall, stepped.stall);
  EXPECT_EQ(timing.dispatch, device.dispatch);
  const std::uint64_t working = stepped.busy + stepped.exposed + stepped.stall;
  EXPECT_EQ(timing.total(), working + device.dispatch);
  EXPECT_EQ(timing.macs, stepped.macs);
  EXPECT_EQ(timing.folds, stepped.waves);
  EXPECT_NEAR(timing.mapping_efficiency, stepped.used / static_cast<double>(stepped.waves), 1e-12);
  EXPECT_NEAR(
      timing.compute_utilization,
      static_cast<double>(stepped.macs) / static_cast<double>(working * device.cores * device.macs),
      1e-12);
  EXPECT_LE(timing.compute_utilization, timing.mapping_efficiency * (1 + 1e-12));
  EXPECT_LE(timing.mapping_efficiency, 1.0);
  EXPECT_EQ(timing.read_bytes[kMemory], memory_reads(device, shape, stepped));
  EXPECT_EQ(timing.write_bytes[kMemory], (Traffic::value_type{0, 0, stepped.written, 0}));
  EXPECT_EQ(timing.read_bytes[kScratchpad],
            (Traffic::value_type{stepped.shared_a, stepped.shared_b, 0, 0}));
  EXPECT_EQ(timing.write_bytes[kScratchpad], (Traffic::value_type{}));
}

// Small enough to be stepped, between bound by the matrix unit and bound by the memory.
Device random_device(std::mt19937& random) {
  Device device;
  device.clock = 1000000 + random() % 5000000;
  device.bw = 10000000 + random() % 1000000000;
  device.cores = 1 + random() % (random() % 4 == 0 ? 60 : 9);
  device.macs = 1 + random() % 700;
  device.tile_m = 1 + random() % 40;
  device.tile_n = 1 + random() % 40;
  device.tile_k = 1 + random() % 40;
  device.dispatch = random() % 50;
  return device;
}

GemmShape random_shape(std::mt19937& random) {
  GemmShape shape =
      shape_of(1 + random() % 90, 1 + random() % 90, 1 + random() % 90, 1 + random() % 4);
  shape.input_bytes = 1u << random() % 3;
  shape.output_bytes = 1u << random() % 3;
  shape.bias = random() % 2 == 0;
  shape.accumulate = random() % 2 == 0;
  return shape;
}

TEST(Simt, EqualsTheSteppedMachine) {
  std::mt19937 random(1);
  int bound_by_memory = 0, bound_by_work = 0;
  for (int i = 0; i < 4000 && !HasFailure(); ++i) {
    const Device device = random_device(random);
    const GemmShape shape = random_shape(random);
    compare(device, shape);
    ++(time_of(device, shape).memory_stall > 0 ? bound_by_memory : bound_by_work);
  }
  EXPECT_GT(bound_by_memory, 50);
  EXPECT_GT(bound_by_work, 50);
}

TEST(Simt, EqualsTheSteppedMachineAroundTilesAndWaves) {
  Device device;
  device.cores = 4;
  device.tile_m = device.tile_n = device.tile_k = 16;
  device.bw = 20000000000;
  for (const std::uint64_t m : {1, 15, 16, 17, 32, 33}) {
    for (const std::uint64_t n : {1, 16, 17, 64, 65}) {
      for (const std::uint64_t k : {1, 16, 17, 33}) {
        for (const std::uint64_t batch : {1, 3, 4}) compare(device, shape_of(m, n, k, batch));
        if (HasFailure()) return;
      }
    }
  }
}

TEST(Simt, FiguresByHand) {
  // One block, 32 steps. A load of 2 x 128 x 32 x 4 = 32768 bytes at 900 bytes a cycle takes 37
  // cycles, a step's work 128 x 128 x 32 / 512 = 1024, the store of 65536 bytes 73.
  const GemmTiming one = time_of({}, shape_of(128, 128, 1024));
  EXPECT_EQ(one.busy, 32u * 1024);
  EXPECT_EQ(one.fill_drain, 37u + 73);
  EXPECT_EQ(one.memory_stall, 0u);
  EXPECT_EQ(one.total(), 1000u + 32 * 1024 + 37 + 73);
  // 64 blocks at once work on 8 + 8 tiles: a load takes 16 x 16384 / 900 = 292 cycles, the store
  // 64 x 65536 / 900 = 4661.
  const GemmTiming wave = time_of({}, shape_of(1024, 1024, 1024));
  EXPECT_EQ(wave.folds, 1u);
  EXPECT_EQ(wave.busy, 32u * 1024);
  EXPECT_EQ(wave.fill_drain, 292u + 4661);
  EXPECT_EQ(wave.memory_stall, 0u);
  EXPECT_EQ(wave.mapping_efficiency, 0.5);  // 64 of 128 cores
  EXPECT_EQ(wave.read_bytes[kMemory][kA], 1024u * 1024 * 4);
  EXPECT_EQ(wave.read_bytes[kScratchpad][kA], 8u * 1024 * 1024 * 4);
  // Two entries share nothing: 32 tiles.
  const GemmTiming batch = time_of({}, shape_of(1024, 1024, 1024, 2));
  EXPECT_EQ(batch.folds, 1u);
  EXPECT_EQ(batch.fill_drain, 583u + 9321);
  EXPECT_EQ(batch.mapping_efficiency, 1.0);
  // 8 waves of 128 blocks, 10 rows by 13 columns: 23 tiles, 419 cycles; the store 9321.
  const GemmTiming large = time_of({}, shape_of(4096, 4096, 4096));
  EXPECT_EQ(large.folds, 8u);
  EXPECT_EQ(large.fill_drain, 8u * (419 + 9321));
  EXPECT_EQ(large.memory_stall, 0u);
  EXPECT_EQ(large.read_bytes[kMemory][kA], 8u * 10 * 128 * 4096 * 4);
  EXPECT_EQ(large.read_bytes[kMemory][kB], 8u * 13 * 128 * 4096 * 4);
  // One row takes a fragment's 16: 16 x 128 x 32 / 512 = 128 cycles a step, and loads one row.
  const GemmTiming row = time_of({}, shape_of(1, 128, 32));
  EXPECT_EQ(row.busy, 128u);
  EXPECT_EQ(row.fill_drain, 19u + 1);  // 129 x 32 x 4 = 16512 bytes, 512 bytes
}

TEST(Simt, AnotherBlockBeyondAWaveCostsAWave) {
  Device device;
  device.bw = 1000000000000000;
  const auto cycles = [&](std::uint64_t blocks) {
    return time_of(device, shape_of(128, 128 * blocks, 320)).busy;
  };
  EXPECT_EQ(cycles(1), 10240u);
  EXPECT_EQ(cycles(128), 10240u);
  EXPECT_EQ(cycles(129), 20480u);
  EXPECT_EQ(cycles(256), 20480u);
  EXPECT_EQ(cycles(257), 30720u);
}

TEST(Simt, AWaveReadsNoTileTwiceAndEachTileOnce) {
  std::mt19937 random(3);
  for (int i = 0; i < 2000 && !HasFailure(); ++i) {
    Device device = random_device(random);
    const GemmShape shape = random_shape(random);
    const GemmTiming timing = time_of(device, shape);
    device.cores = 65536;
    const GemmTiming one_wave = time_of(device, shape);
    device.cores = 1;
    const GemmTiming one_core = time_of(device, shape);
    for (const Operand operand : {kA, kB}) {
      const std::uint64_t lines = operand == kA ? shape.m : shape.n;
      const std::uint64_t once = lines * shape.k * shape.batch * shape.input_bytes;
      EXPECT_EQ(one_wave.read_bytes[kMemory][operand], once);
      EXPECT_GE(timing.read_bytes[kMemory][operand], once);
      EXPECT_LE(timing.read_bytes[kMemory][operand], timing.read_bytes[kScratchpad][operand]);
      EXPECT_EQ(one_core.read_bytes[kMemory][operand], one_core.read_bytes[kScratchpad][operand]);
    }
  }
}

// Bandwidth, matrix units, twice the cores (a wave then holds two, and their patches make one of no
// more tiles), fewer terms or entries, smaller elements: never slower. Cores that are no multiple
// may be: a last wave of few blocks has bandwidth to spare. So may fewer rows or columns: a wave's
// patch may be less of a square.
TEST(Simt, MoreIsNeverSlower) {
  std::mt19937 random(2);
  for (int i = 0; i < 2000 && !HasFailure(); ++i) {
    const Device device = random_device(random);
    const GemmShape shape = random_shape(random);
    const Cycle cycles = time_of(device, shape).total();
    Device better = device;
    better.bw += 1 + random() % 100000000;
    EXPECT_LE(time_of(better, shape).total(), cycles);
    better = device;
    better.macs += 1 + random() % 100;
    EXPECT_LE(time_of(better, shape).total(), cycles);
    better = device;
    better.cores *= 2;
    EXPECT_LE(time_of(better, shape).total(), cycles);
    for (auto dimension : {&GemmShape::k, &GemmShape::batch}) {
      GemmShape larger = shape;
      larger.*dimension += 1 + random() % 40;
      EXPECT_GE(time_of(device, larger).total(), cycles);
    }
    GemmShape wider = shape;
    ++wider.input_bytes;
    EXPECT_GE(time_of(device, wider).total(), cycles);
  }
}

TEST(Simt, IsAModelLikeTheOthers) {
  EXPECT_EQ(time_of({}, shape_of(128, 128, 1024), 1000).total(), 1000u + 32 * 1024 + 37 + 73);
  EventQueue queue;
  const auto model = hardware_of({}).create_model(queue, nullptr);
  EXPECT_EQ(model->peak_macs_per_cycle(), 128u * 512);
  EXPECT_THROW(model->start(shape_of(1, 1, 0), [](const GemmTiming&) {}), std::invalid_argument);
  model->start(shape_of(4, 4, 4), [](const GemmTiming&) {});
  EXPECT_THROW(model->start(shape_of(4, 4, 4), [](const GemmTiming&) {}), std::logic_error);
}

TEST(Simt, ClockCoresAndBandwidthAreEnough) {
  const Hardware hardware(
      {{"model", "simt"}, {"clock", "1GHz"}, {"cores", "128"}, {"memory_bw", "900GB/s"}});
  EXPECT_EQ(hardware.parameters().text(), hardware_of({}).parameters().text());
  EXPECT_EQ(hardware.parameters().text(),
            Hardware(ParameterMap{{"model", "simt"}}).parameters().text());
}

TEST(Simt, TheLargestShapesAreExactOrRefused) {
  const std::uint64_t most = UINT32_MAX;
  Device device;
  device.cores = 65536;
  device.bw = 1000000000000000;  // a wave of single elements moves in a cycle each way
  device.dispatch = 0;
  const std::uint64_t waves = (most + 65535) / 65536;
  EXPECT_EQ(time_of(device, shape_of(1, 1, 1, most)).total(), waves * (1 + 8 + 1));
  Device slow = device;  // a wave of all its cores would not fit 63 bits; the one there is does
  slow.clock = 100000000000;
  slow.bw = 1000000;
  const std::uint64_t steps = most / 32, load = 2 * 32 * 4 * 100000, last = 2 * 31 * 4 * 100000;
  EXPECT_EQ(time_of(slow, shape_of(1, 1, most)).total(), steps * load + last + 16 + 4 * 100000);
  device.cores = 1;
  for (const GemmShape& shape : {shape_of(most, most, most), shape_of(1, most, most, most)}) {
    try {
      time_of(device, shape);
      ADD_FAILURE();
    } catch (const std::overflow_error& error) {
      expect_parts(error.what(), {"M=", "4294967295", "1 cores", "2^63 - 1"});
    }
  }
}

}  // namespace
}  // namespace shmgemm::model
