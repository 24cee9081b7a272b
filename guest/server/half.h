// float16 <-> float32 in plain C++: exact one way, rounded to nearest even the other.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace shmgemm::server {

inline float widen_half(std::uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const int mantissa = half & 0x3ff;
  float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                              : std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
  if (exponent == 0x1f) value = mantissa == 0 ? INFINITY : NAN;
  return (half & 0x8000) != 0 ? -value : value;
}

inline std::uint16_t narrow_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7e00;
  if (magnitude >= 65520.0f) return sign | 0x7c00;
  // Adding a power of two leaves the float32 unit's own rounding to do the work.
  const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
  const float shift = std::ldexp(1.0f, exponent + 13);
  const volatile float rounded = magnitude + shift;  // volatile: no contraction, no extra precision
  const auto units = static_cast<std::uint32_t>(std::ldexp(rounded - shift, 10 - exponent));
  // units of 2^(exponent - 10): 1024..2048 where normal, below 1024 where subnormal
  const std::uint32_t base =
      magnitude < 0x1p-14f ? 0u : static_cast<std::uint32_t>(exponent + 14) << 10;
  return static_cast<std::uint16_t>(sign | (base + units));
}

}  // namespace shmgemm::server
