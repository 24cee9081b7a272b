// Loops over blocks of at most 256 x 256 of C and 384 of K. A K block of int8 has at most 384 terms
// of at most 2^14 each, so float32 holds every partial sum exactly (up to 1024 terms would do);
// blocks are summed in int32.
#include "compute/widened.h"

#include <algorithm>
#include <memory>

#include "compute/blas.h"
#include "compute/convert.h"

namespace shmgemm::compute {
namespace {

constexpr std::uint64_t kBlockRows = 256;
constexpr std::uint64_t kBlockColumns = 256;
constexpr std::uint64_t kBlockK = 384;
static_assert(kBlockK <= 1024, "a longer block of int8 products is not exact in float32");

struct Scratch {
  float a[kBlockRows * kBlockK];
  float b[kBlockK * kBlockColumns];
  float sum[kBlockRows * kBlockColumns];
};

Scratch& scratch_of_this_thread() {
  thread_local const std::unique_ptr<Scratch> scratch(new Scratch);
  return *scratch;
}

// A block of an operand as OpenBLAS will read it: in place where it is float32 already.
struct Operand {
  const float* data;
  std::uint64_t leading;
};

struct Block {
  std::uint64_t row, rows, column, columns;
};

Operand widen_block(Dtype type, const void* base, std::uint64_t leading, std::uint64_t row,
                    std::uint64_t rows, std::uint64_t column, std::uint64_t columns,
                    float* scratch) {
  const char* const first =
      static_cast<const char*>(base) + (row * leading + column) * bytes_of(type);
  if (type == Dtype::kFloat32) return {reinterpret_cast<const float*>(first), leading};
  for (std::uint64_t i = 0; i < rows; ++i) {
    widen(type, first + i * leading * bytes_of(type), scratch + i * columns, columns);
  }
  return {scratch, columns};
}

const void* entry_of(const void* base, Dtype type, std::uint64_t stride, std::uint64_t entry) {
  return static_cast<const char*>(base) + entry * stride * bytes_of(type);
}

// sum (+)= A[block rows, k..] B[k.., block columns]
void multiply(const Gemm& gemm, std::uint64_t entry, const Block& block, std::uint64_t k,
              std::uint64_t k_count, float* sum, std::uint64_t leading_sum, bool add) {
  Scratch& scratch = scratch_of_this_thread();
  const void* const a = entry_of(gemm.a, gemm.input, gemm.stride_a, entry);
  const void* const b = entry_of(gemm.b, gemm.input, gemm.stride_b, entry);
  const Operand wide_a =
      gemm.transpose_a
          ? widen_block(gemm.input, a, gemm.lda, k, k_count, block.row, block.rows, scratch.a)
          : widen_block(gemm.input, a, gemm.lda, block.row, block.rows, k, k_count, scratch.a);
  const Operand wide_b = gemm.transpose_b ? widen_block(gemm.input, b, gemm.ldb, block.column,
                                                        block.columns, k, k_count, scratch.b)
                                          : widen_block(gemm.input, b, gemm.ldb, k, k_count,
                                                        block.column, block.columns, scratch.b);
  Sgemm call;
  call.m = block.rows;
  call.n = block.columns;
  call.k = k_count;
  call.a = wide_a.data;
  call.b = wide_b.data;
  call.c = sum;
  call.lda = wide_a.leading;
  call.ldb = wide_b.leading;
  call.ldc = leading_sum;
  call.transpose_a = gemm.transpose_a;
  call.transpose_b = gemm.transpose_b;
  call.add_to_c = add;
  sgemm(call);
}

// What a row of the sum starts from: C, bias or both; false where it starts from nothing.
bool start_row(const Gemm& gemm, const char* c, const Block& block, float* sum) {
  const float* const bias = static_cast<const float*>(gemm.bias);
  if (gemm.accumulate) {
    widen(gemm.output, c, sum, block.columns);
    for (std::uint64_t i = 0; bias != nullptr && i < block.columns; ++i) {
      sum[i] += bias[block.column + i];
    }
    return true;
  }
  if (bias != nullptr) std::copy_n(bias + block.column, block.columns, sum);
  return bias != nullptr;
}

void run_float_block(const Gemm& gemm, std::uint64_t entry, const Block& block) {
  float* const sum = scratch_of_this_thread().sum;
  const std::uint64_t element = bytes_of(gemm.output);
  char* const c = static_cast<char*>(gemm.c) +
                  (entry * gemm.stride_c + block.row * gemm.ldc + block.column) * element;
  bool add = false;
  for (std::uint64_t row = 0; row < block.rows; ++row) {
    add = start_row(gemm, c + row * gemm.ldc * element, block, sum + row * block.columns);
  }
  for (std::uint64_t k = 0; k < gemm.k; k += kBlockK, add = true) {
    multiply(gemm, entry, block, k, std::min<std::uint64_t>(kBlockK, gemm.k - k), sum,
             block.columns, add);
  }
  for (std::uint64_t row = 0; row < block.rows; ++row) {
    narrow(sum + row * block.columns, gemm.output, c + row * gemm.ldc * element, block.columns);
  }
}

void run_int8_block(const Gemm& gemm, std::uint64_t entry, const Block& block) {
  float* const sum = scratch_of_this_thread().sum;
  std::int32_t* const c = static_cast<std::int32_t*>(gemm.c) + entry * gemm.stride_c +
                          block.row * gemm.ldc + block.column;
  const std::int32_t* const bias = static_cast<const std::int32_t*>(gemm.bias);
  for (std::uint64_t k = 0; k < gemm.k; k += kBlockK) {
    multiply(gemm, entry, block, k, std::min<std::uint64_t>(kBlockK, gemm.k - k), sum,
             block.columns, false);
    for (std::uint64_t row = 0; row < block.rows; ++row) {
      std::int32_t* const out = c + row * gemm.ldc;
      const bool first_block = k == 0;
      add_whole(sum + row * block.columns, out, block.columns,
                !first_block || gemm.accumulate ? out : nullptr,
                first_block && bias != nullptr ? bias + block.column : nullptr);
    }
  }
}

}  // namespace

void run_widened(const Gemm& gemm, const Part& part, std::uint64_t entry) {
  for (std::uint64_t row = part.row; row < part.row_end; row += kBlockRows) {
    for (std::uint64_t column = part.column; column < part.column_end; column += kBlockColumns) {
      const Block block{row, std::min(kBlockRows, part.row_end - row), column,
                        std::min(kBlockColumns, part.column_end - column)};
      if (gemm.input == Dtype::kInt8) {
        run_int8_block(gemm, entry, block);
      } else {
        run_float_block(gemm, entry, block);
      }
    }
  }
}

}  // namespace shmgemm::compute
