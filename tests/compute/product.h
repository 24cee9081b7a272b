// A random product with its operands laid out as asked (leading dimensions, strides, transposes,
// guard bytes around C), and its oracle: a float64 or int64 triple loop with an error bound derived
// from the sum of magnitudes. Shared by the tests of this folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compute/gemm.h"

namespace shmgemm::compute {

struct Case {
  std::uint32_t m = 1, n = 1, k = 1, batch = 1;
  Dtype input = Dtype::kFloat32;
  Dtype output = Dtype::kFloat32;
  bool transpose_a = false, transpose_b = false;
  bool bias = false, accumulate = false;
  std::uint32_t pad = 0;              // elements between rows, and between batch entries
  bool one_a = false, one_b = false;  // stride 0: the same matrix for all entries
};

std::string text(const Case& which);

class Product {
 public:
  explicit Product(const Case& which, std::uint32_t seed = 1);

  Gemm gemm();  // its pointers are into this object
  void run(Engine& engine);
  // Every element against the oracle; every byte outside C as it was. Empty where all is right.
  std::string check() const;
  std::string outside() const;  // the bytes alone
  const std::vector<std::uint8_t>& c_bytes() const { return c_; }
  // Element `index` of A, B or C as stored, for tests that place special values.
  void set_a(std::uint64_t index, double value);
  void set_b(std::uint64_t index, double value);
  double c(std::uint64_t row, std::uint64_t column, std::uint64_t entry = 0) const;

 private:
  struct Expected {
    double value, bound;
  };
  Expected expected(const std::vector<double>& a, const std::vector<double>& b, std::uint64_t entry,
                    std::uint64_t row, std::uint64_t column) const;
  std::uint64_t c_index(std::uint64_t entry, std::uint64_t row, std::uint64_t column) const;

  Case case_;
  std::uint32_t lda_, ldb_, ldc_;
  std::uint64_t stride_a_, stride_b_, stride_c_;
  std::vector<std::uint8_t> a_, b_, bias_, c_, c_before_;
};

std::vector<double> load_all(Dtype dtype, const std::vector<std::uint8_t>& bytes);
double load(Dtype dtype, const std::uint8_t* bytes, std::uint64_t index);
void store(Dtype dtype, std::uint8_t* bytes, std::uint64_t index, double value);

}  // namespace shmgemm::compute
