// Whole round trips through a session and its engine process: NOOP, and the smallest GEMM.
#include <benchmark/benchmark.h>

#include <memory>

#include "client/session.h"

namespace {

std::shared_ptr<shmgemm::Session> open_session() {
  shmgemm::SessionOptions options;
  options.engine_path = SHMGEMM_ENGINE_PATH;
  options.region_bytes = 16u << 20;
  return shmgemm::Session::open(options);
}

void noop_round_trip(benchmark::State& state) {
  const auto session = open_session();
  for (auto _ : state) {
    if (session->noop().status != SHMGEMM_STATUS_OK) {
      state.SkipWithError("a NOOP failed");
      break;
    }
  }
}
BENCHMARK(noop_round_trip)->UseRealTime();

void gemm_4x8x16_round_trip(benchmark::State& state) {
  const auto session = open_session();
  const auto a = session->allocate(4 * 8 * sizeof(float));
  const auto b = session->allocate(8 * 16 * sizeof(float));
  const auto c = session->allocate(4 * 16 * sizeof(float));
  float* const in_a = static_cast<float*>(a->data());
  float* const in_b = static_cast<float*>(b->data());
  float* const out = static_cast<float*>(c->data());
  for (int i = 0; i < 4 * 8; ++i) in_a[i] = 2;
  for (int i = 0; i < 8 * 16; ++i) in_b[i] = 3;
  shmgemm::GemmCall call;
  call.m = 4;
  call.k = 8;
  call.n = 16;
  call.a = {in_a, 0, 8, 1};
  call.b = {in_b, 0, 16, 1};
  call.c = {out, 0, 16, 1};
  std::uint64_t cycles = 0;
  for (auto _ : state) {
    const shmgemm_completion completion = session->gemm(call);
    cycles = completion.end_cycles - completion.start_cycles;
  }
  if (out[0] != 48 || out[63] != 48) state.SkipWithError("the product is wrong");
  state.counters["simulated cycles"] = static_cast<double>(cycles);
}
BENCHMARK(gemm_4x8x16_round_trip)->UseRealTime();

}  // namespace
