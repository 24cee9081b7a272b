#include "inline_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace shmgemm::server {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMaxDimension = 1u << 28;  // below it no size of a matrix overflows
constexpr std::size_t kShownCharacters = 80;

struct ElementType {
  const char* name;
  std::uint64_t in, out, bias;
};
constexpr ElementType kElements[] = {
    {"float32", 4, 4, 4}, {"float64", 8, 8, 8}, {"float16", 2, 2, 4}, {"int8", 1, 4, 4}};

const ElementType& type_of(Element element) { return kElements[static_cast<int>(element)]; }

std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kShownCharacters) text = text.substr(0, kShownCharacters) + "...";
  return text;
}

[[noreturn]] void refuse(const std::string& field, const std::string& came,
                         const std::string& expected) {
  throw ProtocolError(field + ": " + came + " came, " + expected + " expected");
}

// Every dimension is one of a matrix, so none is larger than the largest matrix has bytes.
std::uint32_t dimension(const Json& json, const char* field, std::uint64_t max_matrix_bytes) {
  const auto found = json.find(field);
  const std::uint64_t most = std::min(kMaxDimension, max_matrix_bytes);
  const std::string expected = "a whole number from 1 to " + std::to_string(most);
  if (found == json.end()) refuse(field, "nothing", expected);
  if (!found->is_number_unsigned()) refuse(field, shown(*found), expected);
  const auto value = found->get<std::uint64_t>();
  if (value == 0 || value > most) refuse(field, shown(*found), expected);
  return static_cast<std::uint32_t>(value);
}

void check_shape(const Json& json, const char* field, const Json& expected) {
  const auto found = json.find(field);
  if (found != json.end() && *found != expected) {
    refuse(field, shown(*found), expected.dump() + " by M, N and K");
  }
}

bool check_bias(const Json& json, std::uint32_t n) {
  const auto found = json.find("bias_shape");
  if (found == json.end() || found->is_null()) return false;
  if (*found != Json::array({n}) && *found != Json::array({1, n})) {
    refuse("bias_shape", shown(*found), Json::array({n}).dump() + " by N");
  }
  return true;
}

Element element(const Json& json) {
  const auto found = json.find("dtype");
  if (found == json.end()) return Element::kFloat32;
  const char* expected = "float32, float64, float16 or int8";
  if (!found->is_string()) refuse("dtype", shown(*found), expected);
  std::string name = found->get<std::string>();
  if (name.starts_with("torch.")) name = name.substr(6);
  const auto* type = std::find_if(std::begin(kElements), std::end(kElements),
                                  [&](const ElementType& each) { return each.name == name; });
  if (type == std::end(kElements)) refuse("dtype", shown(*found), expected);
  return static_cast<Element>(type - kElements);
}

void check_size(const char* what, std::uint64_t bytes, std::uint64_t max_bytes) {
  if (bytes > max_bytes) {
    refuse(std::string("size of ") + what + " by M, N and K", std::to_string(bytes) + " bytes",
           "at most " + std::to_string(max_bytes));
  }
}

}  // namespace

const char* element_name(Element element) { return type_of(element).name; }
std::uint64_t input_bytes(Element element) { return type_of(element).in; }
std::uint64_t output_bytes(Element element) { return type_of(element).out; }
std::uint64_t bias_bytes(Element element) { return type_of(element).bias; }

std::string InlineRequest::text() const {
  return std::to_string(m) + "x" + std::to_string(k) + " @ " + std::to_string(k) + "x" +
         std::to_string(n) + " " + element_name(element) + (has_bias ? " with bias" : "");
}

InlineRequest parse_inline_request(std::string_view text, std::uint64_t max_matrix_bytes) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) {
    const Json start(std::string(text.substr(0, kShownCharacters)));
    refuse("JSON", json.is_discarded() ? shown(start) : shown(json), "an object with M, N and K");
  }
  InlineRequest request;
  request.m = dimension(json, "M", max_matrix_bytes);
  request.n = dimension(json, "N", max_matrix_bytes);
  request.k = dimension(json, "K", max_matrix_bytes);
  check_shape(json, "A_shape", Json::array({request.m, request.k}));
  check_shape(json, "B_shape", Json::array({request.k, request.n}));
  request.element = element(json);
  request.has_bias = check_bias(json, request.n);
  check_size("A", request.a_bytes(), max_matrix_bytes);
  check_size("B", request.b_bytes(), max_matrix_bytes);
  check_size("C", request.c_bytes(), max_matrix_bytes);
  check_size("bias", request.bias_total_bytes(), max_matrix_bytes);
  return request;
}

}  // namespace shmgemm::server
