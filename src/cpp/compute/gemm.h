// The numbers. Row-major GEMM on memory the caller has validated:
// C[b] = A[b] B[b] (+ bias) (+ C[b]), accumulated in float32 (int32 for int8), rounded once at the
// end. No dimension is 0. The bits depend on shape, types, values and the CPU's OpenBLAS kernels
// alone, never on how many threads there are. float32: C starts as bias or C and A B is added to
// that. With an accumulation length the order of additions is that of an array (docs/numerics.md),
// and the bits depend on shape, types, values and that length alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shmgemm::compute {

enum class Dtype : std::uint8_t {
  kFloat32 = 1,
  kFloat16 = 2,
  kBfloat16 = 3,
  kInt8 = 4,
  kInt32 = 5
};

struct Gemm {
  std::uint32_t m = 0, n = 0, k = 0, batch = 1;
  std::uint32_t lda = 0, ldb = 0, ldc = 0;                 // elements
  std::uint64_t stride_a = 0, stride_b = 0, stride_c = 0;  // elements, between batch entries
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  const void* bias = nullptr;  // n elements: float32 for float types, int32 for int8; or null
  Dtype input = Dtype::kFloat32;
  Dtype output = Dtype::kFloat32;  // of a float input: any float type; of int8: int32
  bool transpose_a = false;        // A lies as k x m
  bool transpose_b = false;        // B lies as n x k
  bool accumulate = false;
  std::uint64_t accumulation_length = 0;  // terms of K summed before the accumulator; 0: any order
};

// Worker threads that live as long as the pool; idle ones sleep in the kernel.
class Pool;

class Engine {
 public:
  explicit Engine(unsigned threads);  // 0: as many as this process may run on
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void run(const Gemm& gemm);
  // Products that do not wait for each other, shared out together.
  void run(const Gemm* gemms, std::size_t count);
  unsigned threads() const;

 private:
  Pool* pool_;
};

bool supports(Dtype input, Dtype output);

}  // namespace shmgemm::compute
