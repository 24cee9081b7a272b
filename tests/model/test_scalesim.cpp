// The three closed forms against the tool's published figures, and against an oracle that never
// sees a closed form: it pushes every operand through the array cycle by cycle and watches when PEs
// multiply.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "contains.h"
#include "model/event_queue.h"
#include "model/hardware.h"

namespace shmgemm::model {
namespace {

struct Array {
  std::uint64_t rows;
  std::uint64_t columns;
};

Hardware hardware_of(const std::string& dataflow, Array array) {
  return Hardware({{"model", "scalesim_" + dataflow},
                   {"rows", std::to_string(array.rows)},
                   {"cols", std::to_string(array.columns)}});
}

GemmTiming time_of(const std::string& dataflow, Array array, const GemmShape& shape,
                   Cycle begin = 0) {
  EventQueue queue;
  queue.advance_to(begin);
  const auto model = hardware_of(dataflow, array).create_model(queue, nullptr);
  GemmTiming result;
  int calls = 0;
  model->start(shape, [&](const GemmTiming& timing) {
    result = timing;
    ++calls;
    EXPECT_EQ(queue.now(), begin + timing.total());
  });
  EXPECT_EQ(calls, 0) << "done() before its time";
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

// --- the published table
// ---------------------------------------------------------------------------

struct Row {
  Array array;
  std::uint64_t m, n, k;
  std::uint64_t os, ws, is;  // 0: not published
};

const std::vector<Row> kPublished = {
    {{4, 4}, 4, 4, 4, 9, 13, 13},
    {{4, 4}, 5, 7, 9, 59, 89, 101},
    {{8, 4}, 33, 17, 65, 1874, 2294, 2834},
    {{16, 16}, 33, 17, 65, 569, 789, 944},
    {{16, 16}, 1, 64, 64, 375, 751, 439},
    {{16, 16}, 64, 64, 64, 1503, 1759, 1759},
    {{32, 32}, 256, 256, 256, 20351, 22399, 0},
};

TEST(ScaleSim, PublishedCycles) {
  for (const Row& row : kPublished) {
    const GemmShape shape = shape_of(row.m, row.n, row.k);
    EXPECT_EQ(time_of("os", row.array, shape).total(), row.os);
    EXPECT_EQ(time_of("ws", row.array, shape).total(), row.ws);
    if (row.is != 0) {
      EXPECT_EQ(time_of("is", row.array, shape).total(), row.is);
    }
  }
}

// --- the oracle
// ------------------------------------------------------------------------------------

// What one GEMM did on the array, seen from the PEs.
struct Observed {
  std::uint64_t cycles = 0;
  std::uint64_t folds = 0;
  std::uint64_t macs = 0;
  double mapping = 0;  // sum over folds of the used share of PEs
};

// One fold on an array of registers. Stationary operands shift in from the top, one row a cycle (os
// has none); then `streamed` vectors enter at the left edge, row r delayed by r, and move right one
// PE a cycle. A PE multiplies in the cycle in which a vector passes it. The fold ends when the last
// vector has passed the last PE, used or not; the tool counts no cycles for results on their way
// out.
std::uint64_t walk_fold(const std::string& dataflow, Array array, std::uint64_t used_rows,
                        std::uint64_t used_columns, std::uint64_t streamed, std::uint64_t& macs) {
  std::uint64_t cycle = 0;
  if (dataflow != "os") {
    for (std::uint64_t row = 0; row < array.rows; ++row) ++cycle;  // every row is shifted in
  }
  // vector[r][c] is the number of the vector in PE (r, c), or -1.
  std::vector<std::vector<std::int64_t>> vector(array.rows,
                                                std::vector<std::int64_t>(array.columns, -1));
  std::uint64_t last_pe_done = 0;
  for (std::uint64_t step = 0; last_pe_done < streamed; ++step, ++cycle) {
    for (std::uint64_t r = 0; r < array.rows; ++r) {
      for (std::uint64_t c = array.columns - 1; c > 0; --c) vector[r][c] = vector[r][c - 1];
      const bool enters = step >= r && step - r < streamed;
      vector[r][0] = enters ? static_cast<std::int64_t>(step - r) : -1;
      for (std::uint64_t c = 0; c < array.columns; ++c) {
        if (vector[r][c] >= 0 && r < used_rows && c < used_columns) ++macs;
      }
    }
    if (vector[array.rows - 1][array.columns - 1] >= 0) ++last_pe_done;
  }
  return cycle;
}

Observed observe(const std::string& dataflow, Array array, const GemmShape& shape) {
  const bool os = dataflow == "os";
  const std::uint64_t across_rows = os ? shape.m : shape.k;
  const std::uint64_t across_columns = dataflow == "is" ? shape.m : shape.n;
  const std::uint64_t streamed = os ? shape.k : dataflow == "ws" ? shape.m : shape.n;
  Observed seen;
  for (std::uint64_t row = 0; row < across_rows; row += array.rows) {
    for (std::uint64_t column = 0; column < across_columns; column += array.columns) {
      const std::uint64_t used_rows = std::min(array.rows, across_rows - row);
      const std::uint64_t used_columns = std::min(array.columns, across_columns - column);
      seen.cycles += walk_fold(dataflow, array, used_rows, used_columns, streamed, seen.macs);
      seen.mapping += static_cast<double>(used_rows * used_columns) /
                      static_cast<double>(array.rows * array.columns);
      ++seen.folds;
    }
  }
  seen.cycles -= 1;  // the tool counts from cycle 0 and reports the last one
  return seen;
}

TEST(ScaleSim, TheOracleKnowsThePublishedTable) {
  for (const Row& row : kPublished) {
    if (row.m * row.n * row.k > 300000) continue;
    const GemmShape shape = shape_of(row.m, row.n, row.k);
    EXPECT_EQ(observe("os", row.array, shape).cycles, row.os);
    EXPECT_EQ(observe("ws", row.array, shape).cycles, row.ws);
    EXPECT_EQ(observe("is", row.array, shape).cycles, row.is);
  }
}

TEST(ScaleSim, AgreesWithTheOracleOnSmallShapes) {
  const std::vector<std::uint64_t> sizes = {1, 2, 3, 5, 8};
  for (const Array array : {Array{1, 1}, Array{1, 4}, Array{3, 1}, Array{2, 3}, Array{4, 4}}) {
    for (const char* dataflow : {"os", "ws", "is"}) {
      for (const std::uint64_t m : sizes) {
        for (const std::uint64_t n : sizes) {
          for (const std::uint64_t k : sizes) {
            const GemmShape shape = shape_of(m, n, k);
            const Observed seen = observe(dataflow, array, shape);
            const GemmTiming timing = time_of(dataflow, array, shape);
            const std::string what = std::string(dataflow) + " " + std::to_string(array.rows) +
                                     "x" + std::to_string(array.columns) + " " + std::to_string(m) +
                                     "," + std::to_string(n) + "," + std::to_string(k);
            EXPECT_EQ(timing.total(), seen.cycles) << what;
            EXPECT_EQ(timing.folds, seen.folds) << what;
            EXPECT_EQ(timing.macs, seen.macs) << what;
            EXPECT_NEAR(timing.mapping_efficiency, seen.mapping / static_cast<double>(seen.folds),
                        1e-12)
                << what;
          }
        }
      }
    }
  }
}

// --- the rest of the report
// ------------------------------------------------------------------------

TEST(ScaleSim, KindsOfCyclesAddUp) {
  for (const char* dataflow : {"os", "ws", "is"}) {
    const GemmTiming timing = time_of(dataflow, {16, 16}, shape_of(33, 17, 65));
    EXPECT_EQ(timing.busy + timing.fill_drain + timing.memory_stall + timing.dispatch,
              timing.total());
    EXPECT_EQ(timing.memory_stall, 0u);
    EXPECT_EQ(timing.dispatch, 0u);
  }
  // Folds times streamed vectors: 3*2*65, 5*2*33, 5*3*17.
  EXPECT_EQ(time_of("os", {16, 16}, shape_of(33, 17, 65)).busy, 390u);
  EXPECT_EQ(time_of("ws", {16, 16}, shape_of(33, 17, 65)).busy, 330u);
  EXPECT_EQ(time_of("is", {16, 16}, shape_of(33, 17, 65)).busy, 255u);
}

TEST(ScaleSim, OnePeNeverFillsOrDrains) {
  const GemmTiming timing = time_of("os", {1, 1}, shape_of(2, 3, 4));
  EXPECT_EQ(timing.total(), 23u);
  EXPECT_EQ(timing.busy, 23u);
  EXPECT_EQ(timing.fill_drain, 0u);
  EXPECT_EQ(time_of("os", {1, 1}, shape_of(1, 1, 1)).total(), 0u);
}

TEST(ScaleSim, ABatchTakesItsEntriesOneAfterAnother) {
  for (const char* dataflow : {"os", "ws", "is"}) {
    const GemmTiming one = time_of(dataflow, {8, 4}, shape_of(33, 17, 65));
    const GemmTiming five = time_of(dataflow, {8, 4}, shape_of(33, 17, 65, 5));
    EXPECT_EQ(five.total(), 5 * one.total());
    EXPECT_EQ(five.busy, 5 * one.busy);
    EXPECT_EQ(five.macs, 5 * one.macs);
    EXPECT_EQ(five.folds, 5 * one.folds);
    EXPECT_EQ(five.mapping_efficiency, one.mapping_efficiency);
    EXPECT_EQ(five.write_bytes[kScratchpad][kC], 5 * one.write_bytes[kScratchpad][kC]);
    EXPECT_EQ(five.read_bytes[kMemory][kB], 5 * one.read_bytes[kMemory][kB]);
  }
}

// Used PE-cycles over PE-cycles, fold by fold, each fold as long as SCALE-Sim says.
TEST(ScaleSim, ComputeUtilizationIsAMeanOverFolds) {
  const Array array{4, 4};
  const GemmShape shape = shape_of(5, 7, 9);
  // os: folds of 4+1 rows and 4+3 columns; 9 vectors; length 4+4+9-2 = 15.
  const double os = (16 + 12 + 4 + 3) * 9.0 / (16 * 15) / 4;
  // ws: folds of 4+4+1 rows and 4+3 columns; 5 vectors; length 8+8+5-3 = 18.
  const double ws = (16 + 12 + 16 + 12 + 4 + 3) * 5.0 / (16 * 18) / 6;
  // is: folds of 4+4+1 rows and 4+1 columns; 7 vectors; length 8+8+7-3 = 20.
  const double is = (16 + 4 + 16 + 4 + 4 + 1) * 7.0 / (16 * 20) / 6;
  EXPECT_NEAR(time_of("os", array, shape).compute_utilization, os, 1e-12);
  EXPECT_NEAR(time_of("ws", array, shape).compute_utilization, ws, 1e-12);
  EXPECT_NEAR(time_of("is", array, shape).compute_utilization, is, 1e-12);
}

TEST(ScaleSim, ScratchpadTraffic) {
  GemmShape shape = shape_of(5, 7, 9);
  shape.input_bytes = 2;
  shape.output_bytes = 4;
  const auto bytes = [&](const char* dataflow) {
    const GemmTiming timing = time_of(dataflow, {4, 4}, shape);
    return std::vector<std::uint64_t>{timing.read_bytes[kScratchpad][kA],
                                      timing.read_bytes[kScratchpad][kB],
                                      timing.write_bytes[kScratchpad][kC]};
  };
  // A is 5x9, B 9x7, C 5x7; the array cuts M, N, K into 2, 2, 3 pieces.
  EXPECT_EQ(bytes("os"), (std::vector<std::uint64_t>{45 * 2 * 2, 63 * 2 * 2, (35 + 4 * 8) * 4}));
  EXPECT_EQ(bytes("ws"), (std::vector<std::uint64_t>{45 * 2 * 2, 63 * 2, 35 * 3 * 4}));
  EXPECT_EQ(bytes("is"), (std::vector<std::uint64_t>{45 * 2, 63 * 2 * 2, 35 * 3 * 4}));
}

TEST(ScaleSim, MemoryTrafficIsEachOperandOnce) {
  GemmShape shape = shape_of(5, 7, 9, 3);
  shape.input_bytes = 1;
  shape.output_bytes = 4;
  GemmTiming timing = time_of("ws", {4, 4}, shape);
  EXPECT_EQ(timing.read_bytes[kMemory], (Traffic::value_type{45 * 3, 63 * 3, 0, 0}));
  EXPECT_EQ(timing.write_bytes[kMemory], (Traffic::value_type{0, 0, 35 * 4 * 3, 0}));
  shape.bias = true;
  shape.accumulate = true;
  timing = time_of("ws", {4, 4}, shape);
  EXPECT_EQ(timing.read_bytes[kMemory], (Traffic::value_type{45 * 3, 63 * 3, 35 * 4 * 3, 7 * 4}));
}

// --- as a TimingModel
// ------------------------------------------------------------------------------

TEST(ScaleSim, StartsWhereTimeIs) {
  EXPECT_EQ(time_of("ws", {4, 4}, shape_of(4, 4, 4), 1000).total(), 13u);
}

TEST(ScaleSim, DoneMayStartTheNext) {
  EventQueue queue;
  const auto model = hardware_of("ws", {4, 4}).create_model(queue, nullptr);
  std::vector<Cycle> ends;
  TimingModel::Done next = [&](const GemmTiming&) {
    ends.push_back(queue.now());
    if (ends.size() < 3) model->start(shape_of(4, 4, 4), next);
  };
  model->start(shape_of(4, 4, 4), next);
  while (!queue.empty()) queue.run_next();
  EXPECT_EQ(ends, (std::vector<Cycle>{13, 26, 39}));
}

TEST(ScaleSim, OneGemmAtATime) {
  EventQueue queue;
  const auto model = hardware_of("ws", {4, 4}).create_model(queue, nullptr);
  model->start(shape_of(4, 4, 4), [](const GemmTiming&) {});
  EXPECT_THROW(model->start(shape_of(4, 4, 4), [](const GemmTiming&) {}), std::logic_error);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(ScaleSim, AnEmptyGemmIsRefused) {
  for (const GemmShape& shape :
       {shape_of(0, 1, 1), shape_of(1, 0, 1), shape_of(1, 1, 0), shape_of(1, 1, 1, 0)}) {
    EXPECT_THROW(time_of("ws", {4, 4}, shape), std::invalid_argument);
  }
}

TEST(ScaleSim, TheLargestShapesAreExactOrRefused) {
  const std::uint64_t most = UINT32_MAX;
  // 2^32-1 rows of one product each on one PE: F = 2^32-1, P = 1.
  EXPECT_EQ(time_of("os", {1, 1}, shape_of(most, 1, 1)).total(), most - 1);
  // One fold for each of 2^32-1 batch entries: P = 256 + 128 + 1 - 2.
  EXPECT_EQ(time_of("ws", {128, 128}, shape_of(1, 1, 1, most)).total(), most * 382);
  const GemmShape refused[] = {shape_of(most, most, most), shape_of(most, most, most, most),
                               shape_of(most, most, 1, most), shape_of(1, 1, most, most)};
  for (const GemmShape& shape : refused) {
    for (const char* dataflow : {"os", "ws", "is"}) {
      EventQueue queue;
      const auto model = hardware_of(dataflow, {1, 1}).create_model(queue, nullptr);
      try {
        model->start(shape, [](const GemmTiming&) {});
        ADD_FAILURE() << dataflow << " took " << queue.next_time() << " cycles";
      } catch (const std::overflow_error& error) {
        expect_parts(error.what(), {"M=", "4294967295", "batch=", "1x1", "2^63 - 1"});
      }
      EXPECT_TRUE(queue.empty());
      EXPECT_NO_THROW(model->start(shape_of(1, 1, 1), [](const GemmTiming&) {}));
    }
  }
}

TEST(ScaleSim, TimeItselfDoesNotOverflow) {
  EventQueue queue;
  queue.advance_to(static_cast<Cycle>(INT64_MAX) - 5);
  const auto model = hardware_of("ws", {4, 4}).create_model(queue, nullptr);
  EXPECT_THROW(model->start(shape_of(4, 4, 4), [](const GemmTiming&) {}), std::overflow_error);
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace shmgemm::model
