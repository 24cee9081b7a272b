#include "cpu.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "half.h"

namespace shmgemm::server {
namespace {

constexpr std::size_t kBlockK = 64, kBlockN = 512;  // a block of B stays in the cache

template <class In, class Sum>
void multiply(const InlineRequest& request, const In* a, const In* b, Sum* c) {
  const std::size_t m = request.m, n = request.n, k = request.k;
  for (std::size_t k0 = 0; k0 < k; k0 += kBlockK) {
    const std::size_t k1 = std::min(k, k0 + kBlockK);
    for (std::size_t n0 = 0; n0 < n; n0 += kBlockN) {
      const std::size_t n1 = std::min(n, n0 + kBlockN);
      for (std::size_t i = 0; i < m; ++i) {
        for (std::size_t p = k0; p < k1; ++p) {
          const auto factor = static_cast<Sum>(a[i * k + p]);
          const In* row = b + p * n;
          Sum* sums = c + i * n;
          for (std::size_t j = n0; j < n1; ++j) sums[j] += factor * static_cast<Sum>(row[j]);
        }
      }
    }
  }
}

// `c` begins as zeros.
template <class In, class Sum>
void product(const InlineRequest& request, const In* a, const In* b, const std::byte* bias,
             Sum* c) {
  const std::size_t m = request.m, n = request.n;
  multiply(request, a, b, c);
  if (bias == nullptr) return;
  std::vector<Sum> addend(n);
  std::memcpy(addend.data(), bias, n * sizeof(Sum));
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) c[i * n + j] += addend[j];
  }
}

template <class In, class Sum>
void typed(const InlineRequest& request, const std::byte* a, const std::byte* b,
           const std::byte* bias, std::byte* c) {
  std::memset(c, 0, request.c_bytes());
  product(request, reinterpret_cast<const In*>(a), reinterpret_cast<const In*>(b), bias,
          reinterpret_cast<Sum*>(c));
}

std::vector<float> widened(const std::byte* source, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint16_t half;
    std::memcpy(&half, source + 2 * i, sizeof half);
    values[i] = widen_half(half);
  }
  return values;
}

void half_product(const InlineRequest& request, const std::byte* a, const std::byte* b,
                  const std::byte* bias, std::byte* c) {
  const std::size_t m = request.m, n = request.n, k = request.k;
  const std::vector<float> wide_a = widened(a, m * k), wide_b = widened(b, k * n);
  std::vector<float> sums(m * n);
  product(request, wide_a.data(), wide_b.data(), bias, sums.data());
  for (std::size_t i = 0; i < m * n; ++i) {
    const std::uint16_t half = narrow_half(sums[i]);
    std::memcpy(c + 2 * i, &half, sizeof half);
  }
}

}  // namespace

void cpu_product(const InlineRequest& request, const std::byte* a, const std::byte* b,
                 const std::byte* bias, std::byte* c) {
  switch (request.element) {
    case Element::kFloat32:
      return typed<float, float>(request, a, b, bias, c);
    case Element::kFloat64:
      return typed<double, double>(request, a, b, bias, c);
    case Element::kFloat16:
      return half_product(request, a, b, bias, c);
    case Element::kInt8:  // unsigned sums, because they wrap
      return typed<std::int8_t, std::uint32_t>(request, a, b, bias, c);
  }
}

}  // namespace shmgemm::server
