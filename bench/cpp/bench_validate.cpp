// What the engine's checks of a command cost: a NOOP, and a GEMM with all that can be checked.
#include <benchmark/benchmark.h>

#include "abi/shmgemm_validate.h"

namespace {

constexpr shmgemm_limits kLimits{2u << 20, 256u << 20, 1, 1};

shmgemm_command command(std::uint8_t op) {
  shmgemm_command command{};
  command.id = 1;
  command.generation = kLimits.generation;
  command.op = op;
  return command;
}

shmgemm_command gemm() {
  shmgemm_command gemm = command(SHMGEMM_OP_GEMM);
  gemm.dtype_in = gemm.dtype_out = SHMGEMM_DTYPE_FLOAT32;
  gemm.flags = SHMGEMM_FLAG_BIAS | SHMGEMM_FLAG_TRANSPOSE_B;
  gemm.m = gemm.n = gemm.k = gemm.lda = gemm.ldb = gemm.ldc = 512;
  gemm.batch = 4;
  gemm.stride_a = gemm.stride_b = gemm.stride_c = 512 * 512;
  gemm.a = 2u << 20;
  gemm.b = 8u << 20;
  gemm.c = 16u << 20;
  gemm.bias = 32u << 20;
  return gemm;
}

void validate(benchmark::State& state, shmgemm_command command) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(command);
    if (shmgemm_validate_command(&command, &kLimits) != SHMGEMM_STATUS_OK) {
      state.SkipWithError("a good command was rejected");
      break;
    }
  }
}
BENCHMARK_CAPTURE(validate, noop, command(SHMGEMM_OP_NOOP));
BENCHMARK_CAPTURE(validate, gemm, gemm());

}  // namespace
