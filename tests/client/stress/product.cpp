#include "product.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "abi/shmgemm_validate.h"

namespace stress {
namespace {

using shmgemm::GemmCall;
using shmgemm::MatrixView;

constexpr std::uint32_t kMostRows = 12, kMostTerms = 16, kMostBatch = 3;

struct Types {
  std::uint8_t in, out;
};
constexpr Types kTypes[] = {{SHMGEMM_DTYPE_FLOAT32, SHMGEMM_DTYPE_FLOAT32},
                            {SHMGEMM_DTYPE_FLOAT16, SHMGEMM_DTYPE_FLOAT16},
                            {SHMGEMM_DTYPE_FLOAT16, SHMGEMM_DTYPE_FLOAT32},
                            {SHMGEMM_DTYPE_BFLOAT16, SHMGEMM_DTYPE_BFLOAT16},
                            {SHMGEMM_DTYPE_INT8, SHMGEMM_DTYPE_INT32}};

// Of an integer that a float16 holds exactly.
std::uint16_t float16_of(int value) {
  if (value == 0) return 0;
  int exponent = 0;
  const double fraction = std::frexp(std::abs(value), &exponent);  // 0.5 up to 1
  const auto mantissa = static_cast<unsigned>((fraction * 2 - 1) * 1024);
  return static_cast<std::uint16_t>((value < 0 ? 0x8000u : 0u) |
                                    static_cast<unsigned>(exponent - 1 + 15) << 10 | mantissa);
}

double value_of_float16(std::uint16_t bits) {
  if ((bits & 0x7fff) == 0) return 0;
  const double magnitude = std::ldexp(1024 + (bits & 0x3ff), ((bits >> 10) & 31) - 15 - 10);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::uint16_t bfloat16_of(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 16);
}

double value_of_bfloat16(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename T>
void store(void* data, std::int64_t at, T value) {
  std::memcpy(static_cast<char*>(data) + at * std::int64_t{sizeof value}, &value, sizeof value);
}

template <typename T>
T load(const void* data, std::int64_t at) {
  T value;
  std::memcpy(&value, static_cast<const char*>(data) + at * std::int64_t{sizeof value},
              sizeof value);
  return value;
}

void put(void* data, std::int64_t at, std::uint8_t dtype, int value) {
  switch (dtype) {
    case SHMGEMM_DTYPE_FLOAT32:
      return store(data, at, static_cast<float>(value));
    case SHMGEMM_DTYPE_FLOAT16:
      return store(data, at, float16_of(value));
    case SHMGEMM_DTYPE_BFLOAT16:
      return store(data, at, bfloat16_of(static_cast<float>(value)));
    case SHMGEMM_DTYPE_INT8:
      return store(data, at, static_cast<std::int8_t>(value));
    default:
      return store(data, at, std::int32_t{value});
  }
}

double get(const MatrixView& view, std::uint8_t dtype, std::int64_t entry, std::int64_t row,
           std::int64_t column) {
  const std::int64_t at =
      entry * view.batch_stride + row * view.row_stride + column * view.column_stride;
  switch (dtype) {
    case SHMGEMM_DTYPE_FLOAT32:
      return load<float>(view.data, at);
    case SHMGEMM_DTYPE_FLOAT16:
      return value_of_float16(load<std::uint16_t>(view.data, at));
    case SHMGEMM_DTYPE_BFLOAT16:
      return value_of_bfloat16(load<std::uint16_t>(view.data, at));
    case SHMGEMM_DTYPE_INT8:
      return load<std::int8_t>(view.data, at);
    default:
      return load<std::int32_t>(view.data, at);
  }
}

std::uint32_t from_one(Random& random, std::uint32_t most) {
  return 1 + static_cast<std::uint32_t>(below(random, most));
}

}  // namespace

Product::Product(shmgemm::Session& session, Random& random) {
  const Types types = kTypes[below(random, std::size(kTypes))];
  call_.dtype_in = types.in;
  call_.dtype_out = types.out;
  draw_shape(random);
  a_ = place(session, random, call_.m, call_.k, call_.dtype_in, true);
  place_operands(session, random);
}

Product::Product(shmgemm::Session& session, Random& random, std::shared_ptr<Product> input)
    : input_(std::move(input)) {
  draw_shape(random);
  const GemmCall& first = input_->call();
  call_.m = first.m;
  call_.k = first.n;
  call_.batch = first.batch;
  a_.view = first.c;
  place_operands(session, random);
}

void Product::draw_shape(Random& random) {
  call_.m = from_one(random, kMostRows);
  call_.n = from_one(random, kMostRows);
  call_.k = from_one(random, kMostTerms);
  call_.batch = one_in(random, 4) ? from_one(random, kMostBatch) : 1;
  call_.device = static_cast<std::uint8_t>(below(random, kDevices));
  call_.accumulate = one_in(random, 4);
}

void Product::place_operands(shmgemm::Session& session, Random& random) {
  b_ = place(session, random, call_.k, call_.n, call_.dtype_in, true);
  c_ = place(session, random, call_.m, call_.n, call_.dtype_out, false);
  call_.a = a_.view;
  call_.b = b_.view;
  call_.c = c_.view;
  for (std::uint32_t entry = 0; call_.accumulate && entry < call_.batch; ++entry) {
    for (std::uint32_t i = 0; i < call_.m * call_.n; ++i) {
      before_.push_back(get(call_.c, call_.dtype_out, entry, i / call_.n, i % call_.n));
    }
  }
  if (!one_in(random, 4)) return;
  for (std::uint32_t j = 0; j < call_.n; ++j) {
    int_bias_.push_back(static_cast<std::int32_t>(j) - 4);
    float_bias_.push_back(static_cast<float>(int_bias_.back()));
  }
  const bool is_int = call_.dtype_in == SHMGEMM_DTYPE_INT8;
  call_.bias = is_int ? static_cast<const void*>(int_bias_.data()) : float_bias_.data();
}

// In the region or not, with gaps behind rows or not, and (`may_turn`) along columns or rows.
Matrix Product::place(shmgemm::Session& session, Random& random, std::uint32_t rows,
                      std::uint32_t columns, std::uint8_t dtype, bool may_turn) {
  Matrix matrix;
  const bool turned = may_turn && one_in(random, 4);
  const std::int64_t lines = turned ? columns : rows;
  const std::int64_t stride = (turned ? rows : columns) + (one_in(random, 4) ? 3 : 0);
  const std::int64_t elements = lines * stride * call_.batch;
  const std::uint64_t bytes = static_cast<std::uint64_t>(elements) * shmgemm_dtype_bytes(dtype);
  void* data = nullptr;
  if (one_in(random, 2)) {
    matrix.block = session.allocate(bytes);
    data = matrix.block->data();
  } else {
    matrix.own.resize((bytes + 3) / 4);
    data = matrix.own.data();
  }
  matrix.view = {data, lines * stride, turned ? 1 : stride, turned ? stride : 1};
  for (std::int64_t i = 0; i < elements; ++i) {
    put(data, i, dtype, static_cast<int>(below(random, 5)) - 2);
  }
  return matrix;
}

bool Product::next_may_read() const {
  return c_.block != nullptr && call_.dtype_out == SHMGEMM_DTYPE_FLOAT32 && input_ == nullptr;
}

double Product::expected(std::uint32_t entry, std::uint32_t row, std::uint32_t column) const {
  double sum = float_bias_.empty() ? 0 : static_cast<double>(float_bias_[column]);
  if (call_.accumulate) sum += before_[(entry * call_.m + row) * call_.n + column];
  for (std::uint32_t k = 0; k < call_.k; ++k) {
    sum += get(call_.a, call_.dtype_in, entry, row, k) *
           get(call_.b, call_.dtype_in, entry, k, column);
  }
  return sum;
}

std::string Product::wrong() const {
  for (std::uint32_t entry = 0; entry < call_.batch; ++entry) {
    for (std::uint32_t i = 0; i < call_.m * call_.n; ++i) {
      const std::uint32_t row = i / call_.n, column = i % call_.n;
      const double got = get(call_.c, call_.dtype_out, entry, row, column);
      const double sum = expected(entry, row, column);
      if (got == sum) continue;
      return ": element " + std::to_string(entry) + ", " + std::to_string(row) + ", " +
             std::to_string(column) + " is " + std::to_string(got) + ", not " +
             std::to_string(sum) + (call_.accumulate ? ", accumulated" : "") +
             (call_.bias != nullptr ? ", with a bias" : "") +
             (input_ != nullptr ? ", of another's C" : "") +
             (call_.after.channel != nullptr ? ", after it by name" : "") +
             (c_.block != nullptr ? "" : ", staged") + ", stream " + std::to_string(call_.stream) +
             ", device " + std::to_string(call_.device);
    }
  }
  return "";
}

}  // namespace stress
