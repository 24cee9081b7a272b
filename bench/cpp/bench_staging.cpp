// What a client copies into the region and back, by layout and size, beside memcpy of as many
// bytes. Alone, without the product that reads them: `shmgemm bench staging` has it.
#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <vector>

#include "client/operand.h"

namespace {

using shmgemm::MatrixView;
using shmgemm::client::Heap;

enum Layout { kDense, kSmallGaps, kRows, kTransposed, kElements };

// The square of floats with so many bytes.
std::uint32_t side_of(std::int64_t bytes) {
  std::uint32_t side = 1;
  while (std::int64_t{4} * (side + 1) * (side + 1) <= bytes) ++side;
  return side;
}

MatrixView view_of(const std::vector<float>& values, Layout layout, std::int64_t side) {
  switch (layout) {
    case kDense:
      return {values.data(), 0, side, 1};
    case kSmallGaps:
      return {values.data(), 0, side + side / 8, 1};
    case kRows:
      return {values.data(), 0, 2 * side, 1};
    case kTransposed:
      return {values.data(), 0, 1, side};
    default:
      return {values.data(), 0, 2 * side, 2};
  }
}

float element(const Heap& heap, const shmgemm::client::Operand& operand, std::uint64_t row,
              std::uint64_t column) {
  const auto* base = reinterpret_cast<const float*>(heap.region().base() + operand.offset);
  return operand.transposed ? base[column * operand.leading_dimension + row]
                            : base[row * operand.leading_dimension + column];
}

template <Layout kLayout>
void stage(benchmark::State& state) {
  const std::uint32_t side = side_of(state.range(0));
  std::vector<float> values(std::uint64_t{2} * side * side);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1000);
  const MatrixView view = view_of(values, kLayout, side);
  const auto heap = std::make_shared<Heap>(256u << 20);
  for (auto _ : state) {
    const auto operand = shmgemm::client::place_input(*heap, view, 1, side, side, 4);
    if (element(*heap, operand, side - 1, 1) !=
        values[(side - 1ull) * static_cast<std::uint64_t>(view.row_stride) +
               static_cast<std::uint64_t>(view.column_stride)]) {
      state.SkipWithError("a staged element is wrong");
      break;
    }
  }
  state.SetBytesProcessed(state.iterations() * std::int64_t{4} * side * side);
}

void fetch(benchmark::State& state) {
  const std::uint32_t side = side_of(state.range(0));
  std::vector<float> c(std::uint64_t{side} * side);
  const MatrixView view{c.data(), 0, side, 1};
  const auto heap = std::make_shared<Heap>(256u << 20);
  const auto output = shmgemm::client::stage_output(*heap, view, 1, side, side, 4, false);
  std::memset(output.staged->data(), 1, c.size() * 4);
  for (auto _ : state) shmgemm::client::fetch_output(output, view, 1, side, side, 4);
  if (std::memcmp(c.data(), output.staged->data(), c.size() * 4) != 0) {
    state.SkipWithError("what was fetched is wrong");
  }
  state.SetBytesProcessed(state.iterations() * std::int64_t{4} * side * side);
}

void memcpy_alone(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  const std::vector<char> from(bytes, 1);
  const auto heap = std::make_shared<Heap>(256u << 20);
  const auto block = heap->allocate(bytes);
  for (auto _ : state) {
    std::memcpy(block->data(), from.data(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseRealTime()->ArgName("bytes");
  for (const std::int64_t kib : {4, 64, 1024, 16384, 65536}) benchmark->Arg(kib << 10);
}
BENCHMARK(memcpy_alone)->Name("memcpy")->Apply(sizes);
BENCHMARK(stage<kDense>)->Name("stage_dense")->Apply(sizes);
BENCHMARK(stage<kSmallGaps>)->Name("stage_small_gaps")->Apply(sizes);
BENCHMARK(stage<kRows>)->Name("stage_rows")->Apply(sizes);
BENCHMARK(stage<kTransposed>)->Name("stage_transposed")->Apply(sizes);
BENCHMARK(stage<kElements>)->Name("stage_elements")->Apply(sizes);
BENCHMARK(fetch)->Apply(sizes);

}  // namespace
