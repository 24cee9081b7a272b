// Unsigned arithmetic that throws instead of wrapping: with dimensions up to 2^32 - 1 the cycles of
// a GEMM can exceed 64 bits, and a wrapped figure would be a plausible lie. The limit is 2^63 - 1,
// so that a result still adds to a time without wrapping.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace shmgemm::model {

inline std::uint64_t checked(bool overflowed, std::uint64_t value) {
  if (overflowed || value > static_cast<std::uint64_t>(INT64_MAX)) {
    throw std::overflow_error("exceeds 2^63 - 1");
  }
  return value;
}

inline std::uint64_t checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  const bool overflowed = __builtin_add_overflow(a, b, &sum);
  return checked(overflowed, sum);
}

inline std::uint64_t checked_multiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  const bool overflowed = __builtin_mul_overflow(a, b, &product);
  return checked(overflowed, product);
}

template <typename... More>
std::uint64_t checked_multiply(std::uint64_t a, std::uint64_t b, More... more) {
  return checked_multiply(checked_multiply(a, b), static_cast<std::uint64_t>(more)...);
}

inline std::uint64_t divide_up(std::uint64_t a, std::uint64_t b) { return a / b + (a % b != 0); }

}  // namespace shmgemm::model
