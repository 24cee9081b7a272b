// Shares a product out over the pool and sends each part to the kernel of its types. float32 goes
// straight to OpenBLAS, everything else is widened block by block (widened.h), and where the order
// of additions is given, floats have a kernel of their own (bit_accurate.h).
#include "compute/gemm.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "compute/bit_accurate.h"
#include "compute/blas.h"
#include "compute/pool.h"
#include "compute/split.h"
#include "compute/widened.h"

namespace shmgemm::compute {
namespace {

unsigned allowed_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return static_cast<unsigned>(std::max(CPU_COUNT(&set), 1));
  }
  return std::max(std::thread::hardware_concurrency(), 1u);
}

// C starts as the bias, as C or as their sum, and the product is added to it: no second pass over
// C. Without either C is never read.
bool start_c(const Gemm& gemm, const Part& part, float* c) {
  const float* bias = static_cast<const float*>(gemm.bias);
  if (bias == nullptr) return gemm.accumulate;
  for (std::uint64_t row = part.row; row < part.row_end; ++row) {
    float* const out = c + row * gemm.ldc;
    if (gemm.accumulate) {
      for (std::uint64_t column = part.column; column < part.column_end; ++column) {
        out[column] += bias[column];
      }
    } else {
      std::memcpy(out + part.column, bias + part.column,
                  (part.column_end - part.column) * sizeof(float));
    }
  }
  return true;
}

void run_float32(const Gemm& gemm, const Part& part, std::uint64_t entry) {
  const float* const a = static_cast<const float*>(gemm.a) + entry * gemm.stride_a;
  const float* const b = static_cast<const float*>(gemm.b) + entry * gemm.stride_b;
  float* const c = static_cast<float*>(gemm.c) + entry * gemm.stride_c;
  const bool has_start = start_c(gemm, part, c);
  const Tile tile = tile_of(gemm, part);
  for (std::uint64_t column = part.column; column < part.column_end; column += tile.columns) {
    for (std::uint64_t k = 0; k < gemm.k; k += tile.k) {
      Sgemm call;
      call.m = part.row_end - part.row;
      call.n = std::min(tile.columns, part.column_end - column);
      call.k = std::min(tile.k, gemm.k - k);
      call.a = a + (gemm.transpose_a ? k * gemm.lda + part.row : part.row * gemm.lda + k);
      call.b = b + (gemm.transpose_b ? column * gemm.ldb + k : k * gemm.ldb + column);
      call.c = c + part.row * gemm.ldc + column;
      call.lda = gemm.lda;
      call.ldb = gemm.ldb;
      call.ldc = gemm.ldc;
      call.transpose_a = gemm.transpose_a;
      call.transpose_b = gemm.transpose_b;
      call.add_to_c = has_start || k > 0;
      sgemm(call);
    }
  }
}

// int8 sums are modulo 2^32, so every order of additions gives the same.
void (*kernel_of(const Gemm& gemm))(const Gemm&, const Part&, std::uint64_t) {
  if (gemm.input == Dtype::kInt8) return run_widened;
  if (gemm.accumulation_length != 0) {
    return [](const Gemm& which, const Part& part, std::uint64_t entry) {
      run_bit_accurate(which, part, entry);
    };
  }
  const bool plain = gemm.input == Dtype::kFloat32 && gemm.output == Dtype::kFloat32;
  return plain ? run_float32 : run_widened;
}

struct Job {
  const Gemm& gemm;
  const Split split;
  void (*const kernel)(const Gemm&, const Part&, std::uint64_t entry);
};

void run_piece(void* context, std::uint64_t piece, unsigned) {
  const Job& job = *static_cast<const Job*>(context);
  const Part part = part_of(job.gemm, job.split, piece);
  for (std::uint64_t entry = part.entry; entry < part.entry_end; ++entry) {
    job.kernel(job.gemm, part, entry);
  }
}

// Several products as one job of the pool.
struct Jobs {
  std::vector<Job> all;
  std::vector<std::uint64_t> ends;  // the number of pieces up to and with each
  std::uint64_t pieces() const { return ends.empty() ? 0 : ends.back(); }
};

void run_piece_of_all(void* context, std::uint64_t piece, unsigned worker) {
  Jobs& jobs = *static_cast<Jobs*>(context);
  const auto end = std::upper_bound(jobs.ends.begin(), jobs.ends.end(), piece);
  const auto which = static_cast<std::size_t>(end - jobs.ends.begin());
  run_piece(&jobs.all[which], piece - (which == 0 ? 0 : jobs.ends[which - 1]), worker);
}

// As in split.cpp: below it waking a thread costs more than it brings.
constexpr std::uint64_t kSharedMacs = 4u << 20;

std::uint64_t macs_of(const Gemm& gemm) {  // as a measure; wraps where it does not matter
  return std::uint64_t{gemm.m} * gemm.n * gemm.k * gemm.batch;
}

}  // namespace

Engine::Engine(unsigned threads) : pool_(new Pool(threads == 0 ? allowed_cpus() : threads)) {}

Engine::~Engine() { delete pool_; }

unsigned Engine::threads() const { return pool_->threads(); }

void Engine::run(const Gemm& gemm) {
  Job job{gemm, split_of(gemm), kernel_of(gemm)};
  pool_->run(job.split.pieces(), run_piece, &job);
}

void Engine::run(const Gemm* gemms, std::size_t count) {
  std::uint64_t macs = 0;
  for (std::size_t i = 0; i < count; ++i) macs += macs_of(gemms[i]);
  if (count == 1 || macs < kSharedMacs) {
    for (std::size_t i = 0; i < count; ++i) run(gemms[i]);
    return;
  }
  Jobs jobs;
  for (std::size_t i = 0; i < count; ++i) {
    jobs.all.push_back({gemms[i], split_of(gemms[i]), kernel_of(gemms[i])});
    jobs.ends.push_back(jobs.pieces() + jobs.all.back().split.pieces());
  }
  pool_->run(jobs.pieces(), run_piece_of_all, &jobs);
}

bool supports(Dtype input, Dtype output) {
  const auto is_float = [](Dtype dtype) {
    return dtype == Dtype::kFloat32 || dtype == Dtype::kFloat16 || dtype == Dtype::kBfloat16;
  };
  if (input == Dtype::kInt8) return output == Dtype::kInt32;
  return is_float(input) && is_float(output);
}

}  // namespace shmgemm::compute
