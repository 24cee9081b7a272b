// The OpenBLAS of the PyPI wheel scipy-openblas32, whose symbols start with `scipy_`. It is held to
// one thread: its own threads change the bits and burn a core for 0.1 s after each call.
#include "compute/blas.h"

#include <cblas.h>

namespace shmgemm::compute {
namespace {

CBLAS_TRANSPOSE transpose(bool yes) { return yes ? CblasTrans : CblasNoTrans; }

// The leading dimension of a matrix of one row is never used and may be any 32-bit number.
blasint leading(std::uint64_t rows, std::uint64_t width, std::uint64_t given) {
  return static_cast<blasint>(rows > 1 ? given : width);
}

// y (+)= M x or M^T x, for a row-major M of `rows` lines.
struct Vectors {
  bool transpose;
  std::uint64_t rows, columns;
  const float* matrix;
  std::uint64_t matrix_leading;
  const float* x;
  std::uint64_t x_step;
  float* y;
  std::uint64_t y_step;
};

void sgemv(const Vectors& call, bool add) {
  const std::uint64_t x_count = call.transpose ? call.rows : call.columns;
  const std::uint64_t y_count = call.transpose ? call.columns : call.rows;
  scipy_cblas_sgemv(CblasRowMajor, transpose(call.transpose), static_cast<blasint>(call.rows),
                    static_cast<blasint>(call.columns), 1.0f, call.matrix,
                    leading(call.rows, call.columns, call.matrix_leading), call.x,
                    leading(x_count, 1, call.x_step), add ? 1.0f : 0.0f, call.y,
                    leading(y_count, 1, call.y_step));
}

// One row or one column of C: B or A is read once, so OpenBLAS's packing of it would be half the
// work.
bool run_as_vectors(const Sgemm& call) {
  if (call.m == 1) {
    const bool tb = call.transpose_b;
    sgemv({!tb, tb ? call.n : call.k, tb ? call.k : call.n, call.b, call.ldb, call.a,
           call.transpose_a ? call.lda : 1, call.c, 1},
          call.add_to_c);
    return true;
  }
  if (call.n == 1) {
    const bool ta = call.transpose_a;
    sgemv({ta, ta ? call.k : call.m, ta ? call.m : call.k, call.a, call.lda, call.b,
           call.transpose_b ? 1 : call.ldb, call.c, call.ldc},
          call.add_to_c);
    return true;
  }
  return false;
}

}  // namespace

void sgemm(const Sgemm& call) {
  static const bool single_threaded = (scipy_openblas_set_num_threads(1), true);
  static_cast<void>(single_threaded);
  if (run_as_vectors(call)) return;
  const bool ta = call.transpose_a;
  const bool tb = call.transpose_b;
  scipy_cblas_sgemm(CblasRowMajor, transpose(ta), transpose(tb), static_cast<blasint>(call.m),
                    static_cast<blasint>(call.n), static_cast<blasint>(call.k), 1.0f, call.a,
                    leading(ta ? call.k : call.m, ta ? call.m : call.k, call.lda), call.b,
                    leading(tb ? call.n : call.k, tb ? call.k : call.n, call.ldb),
                    call.add_to_c ? 1.0f : 0.0f, call.c, leading(call.m, call.n, call.ldc));
}

bool has_in_place_kernels() {
  static const bool has = [] {
    const std::string family = scipy_openblas_get_corename();
    return family == "SkylakeX" || family == "Cooperlake" || family == "SapphireRapids";
  }();
  return has;
}

std::string blas_version() { return scipy_openblas_get_config(); }

}  // namespace shmgemm::compute
