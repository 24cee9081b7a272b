// The parts of a command's way that lie in the region library: a record through a ring, a block
// from the allocator and back.
#include <benchmark/benchmark.h>

#include <memory>

#include "region/allocator.h"
#include "region/ring.h"

namespace {

using namespace shmgemm::region;

// A command there and a completion back on one thread: the cost of the copies and the sequence
// words.
void ring_there_and_back(benchmark::State& state) {
  const auto pair = std::make_unique<shmgemm_queue_pair>();
  RingProducer<shmgemm_command> submit(pair->commands, SHMGEMM_RING_SLOTS);
  RingConsumer<shmgemm_command> take(pair->commands, SHMGEMM_RING_SLOTS);
  RingProducer<shmgemm_completion> complete(pair->completions, SHMGEMM_RING_SLOTS);
  RingConsumer<shmgemm_completion> reap(pair->completions, SHMGEMM_RING_SLOTS);
  shmgemm_command command{};
  shmgemm_completion completion{};
  std::uint64_t id = 0;
  for (auto _ : state) {
    command.id = ++id;
    submit.publish(command);
    shmgemm_command taken{};
    const bool came = take.poll(taken);
    completion.id = taken.id;
    complete.publish(completion);
    shmgemm_completion reaped{};
    if (!came || !reap.poll(reaped) || reaped.id != id) {
      state.SkipWithError("a record was lost");
      break;
    }
  }
}
BENCHMARK(ring_there_and_back);

// As many at a time as the argument says, which is what a client that does not wait makes of it.
void ring_in_batches(benchmark::State& state) {
  const auto pair = std::make_unique<shmgemm_queue_pair>();
  RingProducer<shmgemm_command> submit(pair->commands, SHMGEMM_RING_SLOTS);
  RingConsumer<shmgemm_command> take(pair->commands, SHMGEMM_RING_SLOTS);
  shmgemm_command command{};
  std::uint64_t sent = 0, came = 0;
  for (auto _ : state) {
    for (std::int64_t i = 0; i < state.range(0); ++i) {
      command.id = ++sent;
      submit.publish(command);
    }
    shmgemm_command taken{};
    while (take.poll(taken)) ++came;
    if (came != sent || taken.id != sent) {
      state.SkipWithError("a record was lost");
      break;
    }
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(came));
}
BENCHMARK(ring_in_batches)->ArgName("records")->Arg(1)->Arg(16)->Arg(SHMGEMM_RING_SLOTS);

// A block of `bytes` and back, among many others of other sizes.
void allocate_and_release(benchmark::State& state) {
  constexpr std::uint64_t kBegin = 2u << 20;
  Allocator allocator(kBegin, kBegin + (64u << 20));
  for (std::uint64_t i = 0; i < 500; ++i) {
    const std::uint64_t kept = allocator.allocate(64 + i * 192);
    const std::uint64_t freed = allocator.allocate(128 + i * 64);
    if (kept == 0 || freed == 0) state.SkipWithError("the arena is too small");
    allocator.release(freed);
  }
  const std::uint64_t bytes = static_cast<std::uint64_t>(state.range(0));
  for (auto _ : state) {
    const std::uint64_t block = allocator.allocate(bytes);
    if (block == 0 || block % SHMGEMM_BLOCK_ALIGN != 0) {
      state.SkipWithError("no block, or a crooked one");
      break;
    }
    allocator.release(block);
  }
}
BENCHMARK(allocate_and_release)->ArgName("bytes")->Arg(512)->Arg(65536)->Arg(4 << 20);

}  // namespace
