// A product whose timing is known takes the same cycles as one that is simulated event by event.
#include "engine/timing_memo.h"

#include <gtest/gtest.h>

#include <random>

#include "host.h"

namespace {

using shmgemm::test::Host;
namespace model = shmgemm::model;

struct Shape {
  std::uint32_t m, n, k, batch, flags;
};

shmgemm_command product(Host& host, std::uint64_t id, const Shape& shape) {
  shmgemm_command command = host.command(SHMGEMM_OP_GEMM, id);
  command.dtype_in = command.dtype_out = SHMGEMM_DTYPE_FLOAT32;
  command.m = shape.m;
  command.n = shape.n;
  command.k = shape.k;
  command.batch = shape.batch;
  command.lda = shape.k;
  command.ldb = command.ldc = shape.n;
  command.stride_c = std::uint64_t{shape.m} * shape.n;
  command.flags = shape.flags | SHMGEMM_FLAG_FLUSH;
  command.a = host.region->heap_begin();
  command.b = host.region->heap_begin() + (1 << 18);
  command.c = host.region->heap_begin() + (1 << 19);
  if ((shape.flags & SHMGEMM_FLAG_BIAS) != 0) {
    command.bias = host.region->heap_begin() + (1 << 18) + (1 << 17);
  }
  return command;
}

std::array<std::uint64_t, 4> parts(const shmgemm_completion& done) {
  return {done.end_cycles - done.start_cycles, done.busy_cycles, done.fill_drain_cycles,
          done.memory_stall_cycles};
}

const model::ParameterMap kMachines[] = {
    {{"model", "systolic"}, {"clock", "940MHz"}, {"rows", "16"}, {"cols", "8"}, {"cores", "3"}},
    {{"model", "systolic"},
     {"clock", "1GHz"},
     {"rows", "4"},
     {"cols", "4"},
     {"memory_bw", "7GB/s"},
     {"memory_latency", "13"},
     {"dataflow", "os"}},
    {{"model", "systolic"}, {"clock", "1GHz"}, {"rows", "8"}, {"cols", "8"}, {"memory", "ideal"}},
    {{"model", "scalesim_ws"}, {"clock", "1GHz"}, {"rows", "8"}, {"cols", "8"}},
};

TEST(TimingMemo, KnownAndSimulatedAreTheSame) {
  for (const auto& machine : kMachines) {
    std::mt19937 random(7);
    Host host(1, 1, machine);
    std::uint64_t id = 0;
    for (int round = 0; round < 40; ++round) {
      const Shape shape{1 + static_cast<std::uint32_t>(random() % 50),
                        1 + static_cast<std::uint32_t>(random() % 50),
                        1 + static_cast<std::uint32_t>(random() % 50),
                        1 + static_cast<std::uint32_t>(random() % 3),
                        static_cast<std::uint32_t>(random() % 4) * SHMGEMM_FLAG_BIAS};
      // With a report, which nobody remembers; then for the first, second and third time.
      std::vector<std::array<std::uint64_t, 4>> seen;
      for (int time = 0; time < 4; ++time) {
        shmgemm_command command = product(host, ++id, shape);
        if (time == 0) {
          command.report = static_cast<std::uint32_t>((host.region->heap_begin() + (3 << 19)) /
                                                      SHMGEMM_BLOCK_ALIGN);
        }
        host.send(command);
        host.serve();
        ASSERT_EQ(host.status(id), unsigned{SHMGEMM_STATUS_OK});
        seen.push_back(parts(host.by_id[id]));
      }
      for (const auto& one : seen) EXPECT_EQ(one, seen[0]) << shape.m << "x" << shape.n;
    }
  }
}

TEST(TimingMemo, OnlyWhatIsTheSameShapeIsKnown) {
  shmgemm::engine::TimingMemo memo;
  model::GemmShape shape;
  shape.m = 2;
  shape.n = 3;
  shape.k = 4;
  model::GemmTiming timing;
  timing.busy = 99;
  memo.remember(shape, timing);
  ASSERT_NE(memo.find(shape), nullptr);
  EXPECT_EQ(memo.find(shape)->busy, 99u);
  shape.placement[0].address = 4096;  // where it lies is not part of it
  EXPECT_NE(memo.find(shape), nullptr);
  for (const auto& change : std::vector<std::function<void(model::GemmShape&)>>{
           [](auto& s) { s.m = 3; }, [](auto& s) { s.n = 4; }, [](auto& s) { s.k = 5; },
           [](auto& s) { s.batch = 2; }, [](auto& s) { s.input_bytes = 2; },
           [](auto& s) { s.output_bytes = 2; }, [](auto& s) { s.bias = true; },
           [](auto& s) { s.accumulate = true; }}) {
    model::GemmShape other = shape;
    change(other);
    EXPECT_EQ(memo.find(other), nullptr);
  }
}

TEST(TimingMemo, ItsSizeIsBounded) {
  shmgemm::engine::TimingMemo memo;
  model::GemmShape shape;
  shape.m = shape.n = 1;
  for (shape.k = 1; shape.k <= 5000; ++shape.k) memo.remember(shape, {});
  shape.k = 1;
  EXPECT_EQ(memo.find(shape), nullptr);
  shape.k = 5000;
  EXPECT_NE(memo.find(shape), nullptr);
}

}  // namespace
