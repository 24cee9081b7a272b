// One single-threaded float32 product by OpenBLAS: the only door to that library.
#pragma once

#include <cstdint>
#include <string>

namespace shmgemm::compute {

struct Sgemm {
  std::uint64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  const float* b = nullptr;
  float* c = nullptr;
  std::uint64_t lda = 0, ldb = 0, ldc = 0;
  bool transpose_a = false, transpose_b = false;
  bool add_to_c = false;  // false: C is written and never read
};

// Row-major C = A B (+ C). Safe from any number of threads at once.
void sgemm(const Sgemm& call);

// Whether the kernels OpenBLAS chose for this CPU include some that read small operands in place.
bool has_in_place_kernels();

std::string blas_version();  // OpenBLAS's own text, with the kernel family in use

}  // namespace shmgemm::compute
