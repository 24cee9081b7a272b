// The closed form against a loop over instructions that starts each one by the rules of the core it
// models, against figures by hand, and against the array itself as far as the two must agree.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "contains.h"
#include "model/event_queue.h"
#include "model/hardware.h"
#include "model/pe_array.h"

namespace shmgemm::model {
namespace {

Hardware hardware_of(ArraySize array) {
  return Hardware({{"model", "ws_double_buffered"},
                   {"rows", std::to_string(array.rows)},
                   {"cols", std::to_string(array.columns)}});
}

GemmTiming time_of(ArraySize array, const GemmShape& shape, Cycle begin = 0) {
  EventQueue queue;
  queue.advance_to(begin);
  const auto model = hardware_of(array).create_model(queue, nullptr);
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

struct Instruction {
  std::uint64_t used_rows, used_columns, streamed;
};

std::vector<Instruction> instructions_of(ArraySize array, const GemmShape& shape) {
  std::vector<Instruction> result;
  for (std::uint64_t batch = 0; batch < shape.batch; ++batch) {
    for (std::uint64_t n = 0; n < shape.n; n += array.columns) {
      for (std::uint64_t k = 0; k < shape.k; k += array.rows) {
        for (std::uint64_t m = 0; m < shape.m; m += array.rows) {
          result.push_back({std::min(array.rows, shape.k - k), std::min(array.columns, shape.n - n),
                            std::min(array.rows, shape.m - m)});
        }
      }
    }
  }
  return result;
}

struct Walked {
  std::uint64_t cycles = 0, macs = 0, streamed = 0;
  double mapping = 0, compute = 0;  // sums over instructions
};

Walked walk(ArraySize array, const std::vector<Instruction>& instructions) {
  Walked walked;
  std::uint64_t start = 2 * array.rows - 1, interval = 0;
  for (const Instruction& one : instructions) {
    start += interval;
    const std::uint64_t length =
        array.rows + array.columns - 2 + std::max<std::uint64_t>(one.streamed, 4);
    walked.cycles = std::max(walked.cycles, start + length);
    interval = std::max({one.streamed, std::uint64_t{4}, array.rows});
    const double used = static_cast<double>(one.used_rows * one.used_columns) /
                        static_cast<double>(array.rows * array.columns);
    walked.mapping += used;
    walked.compute += used * static_cast<double>(one.streamed) / static_cast<double>(interval);
    walked.macs += one.used_rows * one.used_columns * one.streamed;
    walked.streamed += one.streamed;
  }
  return walked;
}

void compare(ArraySize array, const GemmShape& shape) {
  SCOPED_TRACE(std::to_string(array.rows) + "x" + std::to_string(array.columns) + " " +
               std::to_string(shape.m) + "," + std::to_string(shape.n) + "," +
               std::to_string(shape.k) + " batch " + std::to_string(shape.batch));
  const std::vector<Instruction> instructions = instructions_of(array, shape);
  const Walked walked = walk(array, instructions);
  const GemmTiming timing = time_of(array, shape);
  const auto count = static_cast<double>(instructions.size());
  EXPECT_EQ(timing.total(), walked.cycles);
  EXPECT_EQ(timing.busy + timing.fill_drain, walked.cycles);
  EXPECT_EQ(timing.busy, walked.streamed);
  EXPECT_EQ(timing.memory_stall, 0u);
  EXPECT_EQ(timing.dispatch, 0u);
  EXPECT_EQ(timing.folds, instructions.size());
  EXPECT_EQ(timing.macs, walked.macs);
  // Adding `count` terms of at most 1 one by one rounds `count` times.
  const double rounding = 1e-15 + count * std::numeric_limits<double>::epsilon();
  EXPECT_NEAR(timing.mapping_efficiency, walked.mapping / count, rounding);
  EXPECT_NEAR(timing.compute_utilization, walked.compute / count, rounding);
}

TEST(WsDoubleBuffered, FiguresByHand) {
  // 512 instructions: 255 + 511 * 128 + 254 + 128, where 65536 would be ideal.
  EXPECT_EQ(time_of({128, 128}, shape_of(1024, 1024, 1024)).total(), 66045u);
  EXPECT_EQ(time_of({128, 128}, shape_of(128, 128, 128)).total(), 255u + 254 + 128);
  // One row of A still takes 4 cycles: 31 + 15 * 16 + 30 + 4.
  EXPECT_EQ(time_of({16, 16}, shape_of(1, 64, 64)).total(), 305u);
  // On an array under 4x4 each instruction takes 4: 3 + 7 * 4 + 2 + 4.
  EXPECT_EQ(time_of({2, 2}, shape_of(4, 4, 4)).total(), 37u);
  EXPECT_EQ(time_of({1, 1}, shape_of(1, 1, 1)).total(), 1u + 0 + 4);
}

TEST(WsDoubleBuffered, EverySmallShape) {
  for (const ArraySize array :
       {ArraySize{1, 1}, ArraySize{2, 2}, ArraySize{4, 4}, ArraySize{5, 5}, ArraySize{6, 3}}) {
    for (std::uint64_t i = 0; i < 9 * 9 * 9; ++i) {
      compare(array, shape_of(1 + i % 9, 1 + i / 9 % 9, 1 + i / 81));
      if (HasFailure()) return;
    }
  }
}

TEST(WsDoubleBuffered, RandomShapesAndBatches) {
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    const std::uint64_t size = 4 + random() % 37;
    compare({size, size},
            shape_of(1 + random() % 120, 1 + random() % 120, 1 + random() % 120, 1 + random() % 4));
    if (HasFailure()) return;
  }
}

// The array of pe_array.h has its first weights at the port after 0 cycles, the model's core after
// rows - 1; the model's drain is the array's. So on full tiles they differ by that alone.
TEST(WsDoubleBuffered, FullTilesTakeTheArraysCyclesAfterTheFetch) {
  for (const std::uint64_t size : {4, 7, 16}) {
    for (const std::uint64_t pieces : {1, 2, 5}) {
      const ArraySize array{size, size};
      const ArrayTile<Int8Arithmetic> tile{size, size, size, std::vector<std::int8_t>(size * size),
                                           std::vector<std::int8_t>(size * size)};
      const PeArray<Int8Arithmetic> stepped(Dataflow::kWeightStationary, array);
      const auto run = stepped.run(std::vector<ArrayTile<Int8Arithmetic>>(pieces, tile));
      EXPECT_EQ(time_of(array, shape_of(size * pieces, size, size)).total(), run.cycles + size - 1);
    }
  }
}

TEST(WsDoubleBuffered, Traffic) {
  GemmShape shape = shape_of(5, 7, 9, 2);
  shape.input_bytes = 2;
  const GemmTiming timing = time_of({4, 4}, shape);
  // A is 5x9, B 9x7, C 5x7; the array cuts M, N, K into 2, 2, 3 pieces.
  EXPECT_EQ(timing.read_bytes[kScratchpad],
            (Traffic::value_type{45 * 2 * 2 * 2, 63 * 2 * 2 * 2, 0, 0}));
  EXPECT_EQ(timing.write_bytes[kScratchpad], (Traffic::value_type{0, 0, 35 * 3 * 4 * 2, 0}));
  EXPECT_EQ(timing.read_bytes[kMemory], (Traffic::value_type{45 * 2 * 2, 63 * 2 * 2, 0, 0}));
  EXPECT_EQ(timing.write_bytes[kMemory], (Traffic::value_type{0, 0, 35 * 4 * 2, 0}));
}

TEST(WsDoubleBuffered, IsAModelLikeTheOthers) {
  EXPECT_EQ(time_of({4, 4}, shape_of(4, 4, 4), 1000).total(), 7u + 6 + 4);
  EventQueue queue;
  const auto model = hardware_of({4, 4}).create_model(queue, nullptr);
  EXPECT_EQ(model->peak_macs_per_cycle(), 16u);
  EXPECT_THROW(model->start(shape_of(1, 0, 1), [](const GemmTiming&) {}), std::invalid_argument);
  model->start(shape_of(4, 4, 4), [](const GemmTiming&) {});
  EXPECT_THROW(model->start(shape_of(4, 4, 4), [](const GemmTiming&) {}), std::logic_error);
}

TEST(WsDoubleBuffered, TheLargestShapesAreExactOrRefused) {
  const std::uint64_t most = UINT32_MAX;
  EXPECT_EQ(time_of({4, 4}, shape_of(1, 1, 1, most)).total(), 7 + (most - 1) * 4 + 6 + 4);
  EXPECT_EQ(time_of({65536, 65536}, shape_of(1, 1, 1)).total(), 4u * 65536 - 3 + 4);
  for (const GemmShape& shape : {shape_of(most, most, most), shape_of(1, most, most, most)}) {
    try {
      time_of({1, 1}, shape);
      ADD_FAILURE();
    } catch (const std::overflow_error& error) {
      expect_parts(error.what(), {"M=", "4294967295", "1x1", "2^63 - 1"});
    }
  }
}

TEST(WsDoubleBuffered, KnowsOneDataflow) {
  const auto refused = [](const ParameterMap& given) {
    try {
      Hardware hardware(given);
    } catch (const ParameterError& error) {
      return std::string(error.what());
    }
    return std::string("nothing was thrown");
  };
  expect_parts(refused({{"model", "ws_double_buffered"}, {"dataflow", "os"}}),
               {"dataflow = \"os\"", "contradicts", "ws_double_buffered"});
  expect_parts(refused({{"model", "ws_double_buffered"}, {"rows", "0"}}), {"rows", "1 to 65536"});
}

}  // namespace
}  // namespace shmgemm::model
