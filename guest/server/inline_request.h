// What the JSON of an inline op (0 GEMM, 1 LINEAR) asks for, checked: C = A B (+ bias), row-major,
// A of M x K and B of K x N elements. Everything that follows is sized by it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace shmgemm::server {

// Names the field, what came and what was expected. It ends the connection it came on.
struct ProtocolError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Element : std::uint8_t { kFloat32, kFloat64, kFloat16, kInt8 };

const char* element_name(Element element);
std::uint64_t input_bytes(Element element);   // of one element of A or B
std::uint64_t output_bytes(Element element);  // of C
std::uint64_t bias_bytes(Element element);    // of the bias; a float16 product adds float32

struct InlineRequest {
  std::uint32_t m = 0, n = 0, k = 0;
  Element element = Element::kFloat32;
  bool has_bias = false;

  std::uint64_t a_bytes() const { return input_bytes(element) * m * k; }
  std::uint64_t b_bytes() const { return input_bytes(element) * k * n; }
  std::uint64_t c_bytes() const { return output_bytes(element) * m * n; }
  std::uint64_t bias_total_bytes() const { return has_bias ? bias_bytes(element) * n : 0; }
  std::uint64_t total_bytes() const {
    return a_bytes() + b_bytes() + c_bytes() + bias_total_bytes();
  }
  std::string text() const;  // "4x8 @ 8x16 float32"
};

// ProtocolError where it is not what it must be; no matrix of an accepted request is larger than
// `max_matrix_bytes`.
InlineRequest parse_inline_request(std::string_view json, std::uint64_t max_matrix_bytes);

}  // namespace shmgemm::server
