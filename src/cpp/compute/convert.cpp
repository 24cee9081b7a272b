// AVX512-BF16's conversions and products are left alone on purpose: they flush subnormals to zero.
#include "compute/convert.h"

#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace shmgemm::compute {
namespace {

std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Drops the low `shift` bits (1..31), rounding to nearest even.
std::uint32_t round_off(std::uint32_t value, unsigned shift) {
  const std::uint32_t half = (1u << (shift - 1)) - 1;
  return (value + half + ((value >> shift) & 1u)) >> shift;
}

constexpr std::uint32_t kFloat16Infinity = 0x7c00;
constexpr unsigned kMantissaDrop = 13;  // 23 - 10 bits

}  // namespace

float widen_float16(Bits16 half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1f) {
    const std::uint32_t quiet = mantissa != 0 ? 0x400000u : 0u;
    return float_of(sign | 0x7f800000u | quiet | mantissa << kMantissaDrop);
  }
  if (exponent == 0) {  // mantissa * 2^-24, exact
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
    return float_of(sign | bits_of(magnitude));
  }
  return float_of(sign | (exponent + 112) << 23 | mantissa << kMantissaDrop);
}

Bits16 narrow_float16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = kFloat16Infinity | 0x200u | ((magnitude >> kMantissaDrop) & 0x3ffu);
  } else if (magnitude >= 0x47800000u) {  // 65536 and above
    half = kFloat16Infinity;
  } else if (magnitude >= 0x38800000u) {  // normal; a carry may make it infinity
    half = round_off(magnitude - (112u << 23), kMantissaDrop);
  } else if (magnitude >= 0x33000000u) {  // 2^-25 and above: subnormal
    const unsigned shift = 126 - (magnitude >> 23);
    half = round_off((magnitude & 0x7fffffu) | 0x800000u, shift);
  } else {
    half = 0;
  }
  return static_cast<Bits16>(sign | half);
}

float widen_bfloat16(Bits16 bits) { return float_of(static_cast<std::uint32_t>(bits) << 16); }

Bits16 narrow_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Bits16>((bits >> 16) | 0x40u);
  return static_cast<Bits16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

std::uint32_t bytes_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::kInt8:
      return 1;
    case Dtype::kFloat16:
    case Dtype::kBfloat16:
      return 2;
    default:
      return 4;
  }
}

void widen_portable(Dtype source_type, const void* source, float* target, std::uint64_t count) {
  if (source_type == Dtype::kFloat16) {
    const Bits16* const in = static_cast<const Bits16*>(source);
    for (std::uint64_t i = 0; i < count; ++i) target[i] = widen_float16(in[i]);
  } else if (source_type == Dtype::kBfloat16) {
    const Bits16* const in = static_cast<const Bits16*>(source);
    for (std::uint64_t i = 0; i < count; ++i) target[i] = widen_bfloat16(in[i]);
  } else if (source_type == Dtype::kInt8) {
    const std::int8_t* const in = static_cast<const std::int8_t*>(source);
    for (std::uint64_t i = 0; i < count; ++i) target[i] = static_cast<float>(in[i]);
  } else {
    std::memcpy(target, source, count * sizeof(float));
  }
}

void narrow_portable(const float* source, Dtype target_type, void* target, std::uint64_t count) {
  if (target_type == Dtype::kFloat16) {
    Bits16* const out = static_cast<Bits16*>(target);
    for (std::uint64_t i = 0; i < count; ++i) out[i] = narrow_float16(source[i]);
  } else if (target_type == Dtype::kBfloat16) {
    Bits16* const out = static_cast<Bits16*>(target);
    for (std::uint64_t i = 0; i < count; ++i) out[i] = narrow_bfloat16(source[i]);
  } else {
    std::memcpy(target, source, count * sizeof(float));
  }
}

void add_whole(const float* values, std::int32_t* target, std::uint64_t count,
               const std::int32_t* first, const std::int32_t* bias) {
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint32_t sum = static_cast<std::uint32_t>(static_cast<std::int32_t>(values[i]));
    if (first != nullptr) sum += static_cast<std::uint32_t>(first[i]);
    if (bias != nullptr) sum += static_cast<std::uint32_t>(bias[i]);
    target[i] = static_cast<std::int32_t>(sum);
  }
}

#if defined(__x86_64__)
namespace {

#define SHMGEMM_AVX2 __attribute__((target("avx2,f16c")))

// clang 14 has no name for F16C in __builtin_cpu_supports.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") != 0 && has_f16c();
  return has;
}

SHMGEMM_AVX2 std::uint64_t widen_float16_avx2(const Bits16* in, float* out, std::uint64_t count) {
  std::uint64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(out + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
  return i;
}

SHMGEMM_AVX2 std::uint64_t widen_bfloat16_avx2(const Bits16* in, float* out, std::uint64_t count) {
  std::uint64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i wide =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i)));
    _mm256_storeu_ps(out + i, _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
  }
  return i;
}

SHMGEMM_AVX2 std::uint64_t widen_int8_avx2(const std::int8_t* in, float* out, std::uint64_t count) {
  std::uint64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i wide =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + i)));
    _mm256_storeu_ps(out + i, _mm256_cvtepi32_ps(wide));
  }
  return i;
}

SHMGEMM_AVX2 std::uint64_t narrow_float16_avx2(const float* in, Bits16* out, std::uint64_t count) {
  std::uint64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
  }
  return i;
}

SHMGEMM_AVX2 std::uint64_t narrow_bfloat16_avx2(const float* in, Bits16* out, std::uint64_t count) {
  const __m256i one = _mm256_set1_epi32(1);
  const __m256i half = _mm256_set1_epi32(0x7fff);
  const __m256i quiet = _mm256_set1_epi32(0x40);
  std::uint64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 value = _mm256_loadu_ps(in + i);
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i high = _mm256_srli_epi32(bits, 16);
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, half), _mm256_and_si256(high, one));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i rounded =
        _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_or_si256(high, quiet), is_nan);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_castsi256_si128(packed));
  }
  return i;
}

// Each returns how many elements it did; the portable path does the rest.
std::uint64_t widen_by_vector(Dtype type, const void* in, float* out, std::uint64_t count) {
  if (!has_avx2()) return 0;
  if (type == Dtype::kFloat16)
    return widen_float16_avx2(static_cast<const Bits16*>(in), out, count);
  if (type == Dtype::kBfloat16) {
    return widen_bfloat16_avx2(static_cast<const Bits16*>(in), out, count);
  }
  if (type == Dtype::kInt8) return widen_int8_avx2(static_cast<const std::int8_t*>(in), out, count);
  return 0;
}

std::uint64_t narrow_by_vector(const float* in, Dtype type, void* out, std::uint64_t count) {
  if (!has_avx2()) return 0;
  if (type == Dtype::kFloat16) return narrow_float16_avx2(in, static_cast<Bits16*>(out), count);
  if (type == Dtype::kBfloat16) return narrow_bfloat16_avx2(in, static_cast<Bits16*>(out), count);
  return 0;
}

}  // namespace
#else
namespace {
std::uint64_t widen_by_vector(Dtype, const void*, float*, std::uint64_t) { return 0; }
std::uint64_t narrow_by_vector(const float*, Dtype, void*, std::uint64_t) { return 0; }
}  // namespace
#endif

void widen(Dtype source_type, const void* source, float* target, std::uint64_t count) {
  const std::uint64_t done = widen_by_vector(source_type, source, target, count);
  const char* const rest = static_cast<const char*>(source) + done * bytes_of(source_type);
  widen_portable(source_type, rest, target + done, count - done);
}

void narrow(const float* source, Dtype target_type, void* target, std::uint64_t count) {
  const std::uint64_t done = narrow_by_vector(source, target_type, target, count);
  char* const rest = static_cast<char*>(target) + done * bytes_of(target_type);
  narrow_portable(source + done, target_type, rest, count - done);
}

}  // namespace shmgemm::compute
