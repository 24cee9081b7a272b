// Blocks of numbers from and to float32. Every path (portable, AVX2 with F16C) gives the same bits:
// widening is exact, narrowing rounds to nearest even, is right for subnormals, overflows to
// infinity and keeps a NaN a (quiet) NaN.
#pragma once

#include <cstdint>

#include "compute/gemm.h"

namespace shmgemm::compute {

using Bits16 = std::uint16_t;

float widen_float16(Bits16 half);
Bits16 narrow_float16(float value);
float widen_bfloat16(Bits16 bits);
Bits16 narrow_bfloat16(float value);

std::uint32_t bytes_of(Dtype dtype);

// `count` elements of `source` (float16, bfloat16, int8 or float32) as float32.
void widen(Dtype source_type, const void* source, float* target, std::uint64_t count);
// `count` float32 values rounded to `target_type` (float16, bfloat16 or float32).
void narrow(const float* source, Dtype target_type, void* target, std::uint64_t count);
// target = first (or 0) + bias (or 0) + values, modulo 2^32; the values are whole numbers below
// 2^31. `first` may be `target`.
void add_whole(const float* values, std::int32_t* target, std::uint64_t count,
               const std::int32_t* first, const std::int32_t* bias);

// For tests: the portable path alone, whatever the CPU has.
void widen_portable(Dtype source_type, const void* source, float* target, std::uint64_t count);
void narrow_portable(const float* source, Dtype target_type, void* target, std::uint64_t count);

}  // namespace shmgemm::compute
