// Our products beside OpenBLAS called once by each thread on its share of the columns, and products
// whose operands are widened; each result is checked before it counts.
#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

#include "compute/blas.h"
#include "compute/convert.h"
#include "compute/gemm.h"
#include "compute/pool.h"
#include "region/waiter.h"

namespace {

using namespace shmgemm::compute;

// Small whole numbers: exact in every type, and so is every sum.
struct Operands {
  Operands(unsigned m, unsigned n, unsigned k, Dtype dtype)
      : a(m * k * bytes_of(dtype)), b(k * n * bytes_of(dtype)), c(m * n * 4ull) {
    fill(a, dtype, 3);
    fill(b, dtype, 5);
    gemm.m = m;
    gemm.n = gemm.ldb = gemm.ldc = n;
    gemm.k = gemm.lda = k;
    gemm.a = a.data();
    gemm.b = b.data();
    gemm.c = c.data();
    gemm.input = dtype;
    gemm.output = dtype == Dtype::kInt8 ? Dtype::kInt32 : Dtype::kFloat32;
  }

  static int value(std::uint64_t index, unsigned step) {
    return static_cast<int>(index * step % 7) - 3;
  }

  static void fill(std::vector<char>& bytes, Dtype dtype, unsigned step) {
    for (std::uint64_t i = 0; i < bytes.size() / bytes_of(dtype); ++i) {
      const float number = static_cast<float>(value(i, step));
      if (dtype == Dtype::kInt8) {
        bytes[i] = static_cast<char>(number);
      } else {
        narrow(&number, dtype, bytes.data() + i * bytes_of(dtype), 1);
      }
    }
  }

  bool last_row_is_right() const {
    for (std::uint64_t column = 0; column < gemm.n; ++column) {
      std::int64_t sum = 0;
      for (std::uint64_t k = 0; k < gemm.k; ++k) {
        sum += value((gemm.m - 1ull) * gemm.k + k, 3) * value(k * gemm.n + column, 5);
      }
      const std::uint64_t at = (gemm.m - 1ull) * gemm.n + column;
      const double got = gemm.output == Dtype::kInt32 ? static_cast<const std::int32_t*>(gemm.c)[at]
                                                      : static_cast<const float*>(gemm.c)[at];
      if (got != static_cast<double>(sum)) return false;
    }
    return true;
  }

  std::vector<char> a, b, c;
  Gemm gemm;
};

void finish(benchmark::State& state, const Operands& operands) {
  if (!operands.last_row_is_right()) state.SkipWithError("the product is wrong");
  const double macs = 1.0 * operands.gemm.m * operands.gemm.n * operands.gemm.k;
  state.counters["MAC/s"] = benchmark::Counter(macs, benchmark::Counter::kIsIterationInvariantRate);
}

template <Dtype kDtype>
void ours(benchmark::State& state) {
  Operands operands(state.range(0), state.range(1), state.range(2), kDtype);
  Engine engine(0);
  for (auto _ : state) engine.run(operands.gemm);
  finish(state, operands);
}

void openblas(benchmark::State& state) {
  Operands operands(state.range(0), state.range(1), state.range(2), Dtype::kFloat32);
  Pool pool(shmgemm::region::allowed_cpus());
  struct Job {
    const Gemm& gemm;
    std::uint64_t columns;
  } job{operands.gemm, (operands.gemm.n / pool.threads() / 16 + 1) * 16};
  const auto share = [](void* context, std::uint64_t piece, unsigned) {
    const Job& job = *static_cast<Job*>(context);
    const std::uint64_t column = piece * job.columns;
    Sgemm call;
    call.m = job.gemm.m;
    call.n = std::min<std::uint64_t>(job.columns, job.gemm.n - column);
    call.k = call.lda = job.gemm.k;
    call.ldb = call.ldc = job.gemm.n;
    call.a = static_cast<const float*>(job.gemm.a);
    call.b = static_cast<const float*>(job.gemm.b) + column;
    call.c = static_cast<float*>(job.gemm.c) + column;
    sgemm(call);
  };
  const std::uint64_t shares = (operands.gemm.n + job.columns - 1) / job.columns;
  for (auto _ : state) pool.run(shares, share, &job);
  finish(state, operands);
}

// M, N, K: a command's smallest, a transformer's layers, square ones.
void shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseRealTime()->Unit(benchmark::kMicrosecond)->ArgNames({"m", "n", "k"});
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{4, 16, 8},
                                                 {1, 1536, 384},
                                                 {8, 1536, 384},
                                                 {32, 384, 384},
                                                 {32, 1536, 384},
                                                 {128, 384, 1536},
                                                 {128, 512, 512},
                                                 {512, 512, 512},
                                                 {1024, 1024, 1024}}) {
    benchmark->Args(shape);
  }
}

BENCHMARK(openblas)->Apply(shapes);
BENCHMARK(ours<Dtype::kFloat32>)->Name("float32")->Apply(shapes);
BENCHMARK(ours<Dtype::kFloat16>)->Name("float16")->Apply(shapes);
BENCHMARK(ours<Dtype::kBfloat16>)->Name("bfloat16")->Apply(shapes);
BENCHMARK(ours<Dtype::kInt8>)->Name("int8")->Apply(shapes);

}  // namespace
