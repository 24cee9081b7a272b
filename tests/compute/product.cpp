// Loads and stores here are written anew, in float64 arithmetic, and do not use compute/convert.h.
#include "product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <sstream>
#include <stdexcept>

namespace shmgemm::compute {
namespace {

constexpr std::uint64_t kGuardBytes = 256;
constexpr std::uint8_t kGuard = 0xa5;

struct Format {
  int mantissa_bits;  // with the hidden one
  int min_exponent;   // of a normal number, as frexp gives it minus 1
};

Format format_of(Dtype dtype) {
  if (dtype == Dtype::kFloat16) return {11, -14};
  if (dtype == Dtype::kBfloat16) return {8, -126};
  return {24, -126};
}

std::uint64_t element_bytes(Dtype dtype) {
  if (dtype == Dtype::kInt8) return 1;
  return dtype == Dtype::kFloat16 || dtype == Dtype::kBfloat16 ? 2 : 4;
}

bool is_integer(Dtype dtype) { return dtype == Dtype::kInt8 || dtype == Dtype::kInt32; }

// Half the distance between neighbours around `value`.
double half_step(Dtype dtype, double value) {
  const Format format = format_of(dtype);
  const int exponent =
      value == 0 ? format.min_exponent : std::max(std::ilogb(value), format.min_exponent);
  return std::ldexp(0.5, exponent - format.mantissa_bits + 1);
}

double decode(std::uint32_t bits, int exponent_bits, int mantissa_bits) {
  const std::uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1u << exponent_bits) - 1));
  const bool negative = ((bits >> (mantissa_bits + exponent_bits)) & 1u) != 0;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  double value;
  if (exponent == (1 << exponent_bits) - 1) {
    value = mantissa == 0 ? HUGE_VAL : std::nan("");
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, 1 - bias - mantissa_bits);
  } else {
    value = std::ldexp(mantissa + (1u << mantissa_bits), exponent - bias - mantissa_bits);
  }
  return negative ? -value : value;
}

// For values that the format holds exactly.
std::uint32_t encode_exact(double value, int exponent_bits, int mantissa_bits) {
  for (std::uint32_t bits = 0; bits < (1u << (exponent_bits + mantissa_bits + 1)); ++bits) {
    const double decoded = decode(bits, exponent_bits, mantissa_bits);
    if (decoded == value || (std::isnan(decoded) && std::isnan(value))) return bits;
  }
  throw std::invalid_argument("not a value of the format: " + std::to_string(value));
}

void fill(std::vector<std::uint8_t>& bytes, Dtype dtype, std::mt19937& random) {
  const std::uint64_t count = bytes.size() / element_bytes(dtype);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(random());
    std::uint8_t* const at = bytes.data() + i * element_bytes(dtype);
    if (dtype == Dtype::kInt8) {
      *at = static_cast<std::uint8_t>(bits);
    } else if (dtype == Dtype::kInt32) {
      std::memcpy(at, &bits, 4);
    } else if (dtype == Dtype::kFloat32) {  // all mantissa bits in use, magnitude 0.25..2
      const std::uint32_t pattern = (bits & 0x807fffffu) | (125u + bits / 8388608u % 3u) << 23;
      std::memcpy(at, &pattern, 4);
    } else if (dtype == Dtype::kFloat16) {
      const std::uint16_t pattern =
          static_cast<std::uint16_t>((bits & 0x83ffu) | (13u + (bits >> 16) % 3u) << 10);
      std::memcpy(at, &pattern, 2);
    } else {
      const std::uint16_t pattern =
          static_cast<std::uint16_t>((bits & 0x807fu) | (125u + (bits >> 16) % 3u) << 7);
      std::memcpy(at, &pattern, 2);
    }
  }
}

}  // namespace

double load(Dtype dtype, const std::uint8_t* bytes, std::uint64_t index) {
  const std::uint8_t* const at = bytes + index * element_bytes(dtype);
  if (dtype == Dtype::kInt8) return static_cast<std::int8_t>(*at);
  if (dtype == Dtype::kInt32) {
    std::int32_t value;
    std::memcpy(&value, at, 4);
    return value;
  }
  if (dtype == Dtype::kFloat32) {
    float value;
    std::memcpy(&value, at, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return dtype == Dtype::kFloat16 ? decode(bits, 5, 10) : decode(bits, 8, 7);
}

void store(Dtype dtype, std::uint8_t* bytes, std::uint64_t index, double value) {
  std::uint8_t* const at = bytes + index * element_bytes(dtype);
  if (dtype == Dtype::kInt8) {
    *at = static_cast<std::uint8_t>(static_cast<std::int8_t>(value));
  } else if (dtype == Dtype::kFloat32) {
    const float single = static_cast<float>(value);
    std::memcpy(at, &single, 4);
  } else {
    const std::uint16_t bits = static_cast<std::uint16_t>(
        dtype == Dtype::kFloat16 ? encode_exact(value, 5, 10) : encode_exact(value, 8, 7));
    std::memcpy(at, &bits, 2);
  }
}

std::vector<double> load_all(Dtype dtype, const std::vector<std::uint8_t>& bytes) {
  std::vector<double> values(bytes.size() / element_bytes(dtype));
  for (std::uint64_t i = 0; i < values.size(); ++i) values[i] = load(dtype, bytes.data(), i);
  return values;
}

std::string text(const Case& which) {
  std::ostringstream out;
  out << which.m << "x" << which.k << " @ " << which.k << "x" << which.n << " batch " << which.batch
      << " dtypes " << int(which.input) << "->" << int(which.output)
      << (which.transpose_a ? " ta" : "") << (which.transpose_b ? " tb" : "")
      << (which.bias ? " bias" : "") << (which.accumulate ? " accumulate" : "") << " pad "
      << which.pad << (which.one_a ? " one_a" : "") << (which.one_b ? " one_b" : "");
  return out.str();
}

Product::Product(const Case& which, std::uint32_t seed) : case_(which) {
  const Case& c = case_;
  lda_ = (c.transpose_a ? c.m : c.k) + c.pad;
  ldb_ = (c.transpose_b ? c.k : c.n) + c.pad;
  ldc_ = c.n + c.pad;
  const std::uint64_t a_rows = c.transpose_a ? c.k : c.m;
  const std::uint64_t b_rows = c.transpose_b ? c.n : c.k;
  stride_a_ = c.one_a ? 0 : a_rows * lda_ + c.pad;
  stride_b_ = c.one_b ? 0 : b_rows * ldb_ + c.pad;
  stride_c_ = std::uint64_t{c.m} * ldc_ + c.pad;
  // Not one byte more than the last element needs: a read beyond it is the sanitizer's to find.
  const auto span = [&](std::uint64_t stride, std::uint64_t rows, std::uint64_t ld,
                        std::uint64_t width) {
    return (c.batch - 1) * stride + (rows - 1) * ld + width;
  };
  a_.resize(span(stride_a_, a_rows, lda_, c.transpose_a ? c.m : c.k) * element_bytes(c.input));
  b_.resize(span(stride_b_, b_rows, ldb_, c.transpose_b ? c.k : c.n) * element_bytes(c.input));
  const Dtype bias_type = is_integer(c.input) ? Dtype::kInt32 : Dtype::kFloat32;
  bias_.resize(c.bias ? c.n * 4ull : 0);
  const std::uint64_t c_bytes = span(stride_c_, c.m, ldc_, c.n) * element_bytes(c.output);
  std::mt19937 random(seed);
  fill(a_, c.input, random);
  fill(b_, c.input, random);
  fill(bias_, bias_type, random);
  std::vector<std::uint8_t> middle(c_bytes, 0xff);  // NaN for every float type
  if (c.accumulate) fill(middle, c.output, random);
  c_.assign(kGuardBytes, kGuard);
  c_.insert(c_.end(), middle.begin(), middle.end());
  c_.insert(c_.end(), kGuardBytes, kGuard);
  c_before_ = c_;
}

Gemm Product::gemm() {
  Gemm gemm;
  gemm.m = case_.m;
  gemm.n = case_.n;
  gemm.k = case_.k;
  gemm.batch = case_.batch;
  gemm.lda = lda_;
  gemm.ldb = ldb_;
  gemm.ldc = ldc_;
  gemm.stride_a = stride_a_;
  gemm.stride_b = stride_b_;
  gemm.stride_c = stride_c_;
  gemm.a = a_.data();
  gemm.b = b_.data();
  gemm.c = c_.data() + kGuardBytes;
  gemm.bias = case_.bias ? bias_.data() : nullptr;
  gemm.input = case_.input;
  gemm.output = case_.output;
  gemm.transpose_a = case_.transpose_a;
  gemm.transpose_b = case_.transpose_b;
  gemm.accumulate = case_.accumulate;
  return gemm;
}

void Product::run(Engine& engine) {
  c_ = c_before_;
  engine.run(gemm());
}

void Product::set_a(std::uint64_t index, double value) {
  store(case_.input, a_.data(), index, value);
}
void Product::set_b(std::uint64_t index, double value) {
  store(case_.input, b_.data(), index, value);
}

std::uint64_t Product::c_index(std::uint64_t entry, std::uint64_t row, std::uint64_t column) const {
  return entry * stride_c_ + row * ldc_ + column;
}

double Product::c(std::uint64_t row, std::uint64_t column, std::uint64_t entry) const {
  return load(case_.output, c_.data() + kGuardBytes, c_index(entry, row, column));
}

Product::Expected Product::expected(const std::vector<double>& a, const std::vector<double>& b,
                                    std::uint64_t entry, std::uint64_t row,
                                    std::uint64_t column) const {
  double sum = 0;
  double magnitude = 0;
  std::int64_t whole = 0;
  const auto add = [&](double term) {
    sum += term;
    magnitude += std::fabs(term);
    if (is_integer(case_.input)) whole += static_cast<std::int64_t>(term);
  };
  for (std::uint64_t k = 0; k < case_.k; ++k) {
    const std::uint64_t at_a = case_.transpose_a ? k * lda_ + row : row * lda_ + k;
    const std::uint64_t at_b = case_.transpose_b ? column * ldb_ + k : k * ldb_ + column;
    add(a[entry * stride_a_ + at_a] * b[entry * stride_b_ + at_b]);
  }
  if (case_.bias)
    add(load(is_integer(case_.input) ? Dtype::kInt32 : Dtype::kFloat32, bias_.data(), column));
  if (case_.accumulate) {
    add(load(case_.output, c_before_.data() + kGuardBytes, c_index(entry, row, column)));
  }
  if (is_integer(case_.input)) {
    return {static_cast<double>(static_cast<std::int32_t>(static_cast<std::uint32_t>(whole))), 0};
  }
  // Any order of k + 2 additions in float32: gamma(k + 2) times the sum of magnitudes
  // (Higham, 3.5).
  const double u = std::ldexp(1.0, -24) * (case_.k + 3);
  const double summing = u / (1 - u) * magnitude;
  return {sum, summing + half_step(case_.output, std::fabs(sum) + summing)};
}

std::string Product::check() const {
  const std::vector<double> a = load_all(case_.input, a_);
  const std::vector<double> b = load_all(case_.input, b_);
  for (std::uint64_t entry = 0; entry < case_.batch; ++entry) {
    for (std::uint64_t row = 0; row < case_.m; ++row) {
      for (std::uint64_t column = 0; column < case_.n; ++column) {
        const Expected want = expected(a, b, entry, row, column);
        const double got = c(row, column, entry);
        if (!(std::fabs(got - want.value) <= want.bound)) {
          std::ostringstream out;
          out.precision(17);
          out << text(case_) << ": C[" << entry << "][" << row << "][" << column << "] = " << got
              << ", expected " << want.value << " within " << want.bound;
          return out.str();
        }
      }
    }
  }
  return outside();
}

std::string Product::outside() const {
  std::vector<std::uint8_t> outside = c_;
  const std::uint64_t bytes = case_.n * element_bytes(case_.output);
  for (std::uint64_t entry = 0; entry < case_.batch; ++entry) {
    for (std::uint64_t row = 0; row < case_.m; ++row) {
      const std::uint64_t at = kGuardBytes + c_index(entry, row, 0) * element_bytes(case_.output);
      std::memcpy(outside.data() + at, c_before_.data() + at, bytes);
    }
  }
  return outside == c_before_ ? "" : text(case_) + ": bytes outside C were written";
}

}  // namespace shmgemm::compute
