#include "client/inline_gemm.h"

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "abi/shmgemm_validate.h"
#include "client/operand.h"
#include "client/product.h"
#include "region/error.h"

namespace shmgemm::client {
namespace {

using Bytes = std::vector<char>;
using Deadline = TcpConnection::Deadline;

const char* type_name(const GemmCall& call) {
  const bool same = call.dtype_in == call.dtype_out;
  if (call.dtype_in == SHMGEMM_DTYPE_FLOAT32 && same) return "float32";
  if (call.dtype_in == SHMGEMM_DTYPE_FLOAT16 && same) return "float16";
  if (call.dtype_in == SHMGEMM_DTYPE_INT8) return "int8";
  throw Unsupported(
      text_of(call) +
      ": inline ops carry float32, float16 and int8; connect with region= for others");
}

std::string shape(std::uint32_t rows, std::uint32_t columns) {
  return "[" + std::to_string(rows) + "," + std::to_string(columns) + "]";
}

std::string description(const GemmCall& call) {
  static std::atomic<std::uint64_t> ops{0};
  std::string json = R"({"op_id":)" + std::to_string(++ops);
  json += R"(,"M":)" + std::to_string(call.m) + R"(,"N":)" + std::to_string(call.n);
  json += R"(,"K":)" + std::to_string(call.k);
  json += R"(,"A_shape":)" + shape(call.m, call.k) + R"(,"B_shape":)" + shape(call.k, call.n);
  json += R"(,"dtype":")" + std::string(type_name(call)) + "\"";
  if (call.bias != nullptr) json += R"(,"bias_shape":[)" + std::to_string(call.n) + "]";
  return json + "}";
}

MatrixView entry(const MatrixView& view, std::uint32_t index, std::uint32_t element_bytes) {
  MatrixView result = view;
  result.data = static_cast<const char*>(view.data) +
                static_cast<std::int64_t>(index) * view.batch_stride * element_bytes;
  return result;
}

void append_matrix(Bytes& frame, const MatrixView& view, std::uint32_t rows, std::uint32_t columns,
                   std::uint32_t element_bytes) {
  const std::uint64_t bytes = std::uint64_t{rows} * columns * element_bytes;
  if (bytes > UINT32_MAX) {
    throw Unsupported("a matrix of " + std::to_string(bytes) +
                      " bytes: the protocol carries at most 4294967295");
  }
  std::vector<std::uint64_t> packed((bytes + 7) / 8);  // aligned, as its place in a frame is not
  pack_rows(packed.data(), view, 1, rows, columns, element_bytes);
  char size[4];
  write_big_endian(size, static_cast<std::uint32_t>(bytes));
  frame.insert(frame.end(), size, size + sizeof size);
  const auto* first = reinterpret_cast<const char*>(packed.data());
  frame.insert(frame.end(), first, first + bytes);
}

Bytes frame_of(const GemmCall& call, std::uint32_t index) {
  const std::uint32_t bytes = shmgemm_dtype_bytes(call.dtype_in);
  const std::string json = description(call);
  Bytes frame(kWireHeadBytes);
  write_wire_head(frame.data(), call.bias != nullptr ? SHMGEMM_WIRE_LINEAR : SHMGEMM_WIRE_GEMM,
                  static_cast<std::uint32_t>(json.size()));
  frame.insert(frame.end(), json.begin(), json.end());
  append_matrix(frame, entry(call.a, index, bytes), call.m, call.k, bytes);
  append_matrix(frame, entry(call.b, index, bytes), call.k, call.n, bytes);
  if (call.bias != nullptr) {
    const MatrixView row{call.bias, 0, static_cast<std::int64_t>(call.n), 1};
    append_matrix(frame, row, 1, call.n, 4);
  }
  return frame;
}

Bytes exchange(TcpConnection& connection, const Bytes& frame, std::uint64_t expected_bytes,
               Deadline deadline) {
  connection.send(frame.data(), frame.size(), deadline);
  char size[4];
  connection.receive(size, sizeof size, deadline);
  if (read_big_endian(size) != expected_bytes) {
    throw ProtocolError("the device server's answer has " + std::to_string(read_big_endian(size)) +
                        " bytes, " + std::to_string(expected_bytes) + " expected");
  }
  Bytes answer(expected_bytes);
  connection.receive(answer.data(), answer.size(), deadline);
  return answer;
}

Bytes ask(ConnectionPool& pool, const Bytes& frame, std::uint64_t expected_bytes,
          Deadline deadline) {
  auto lent = pool.checkout(deadline);
  try {
    Bytes answer = exchange(**lent, frame, expected_bytes, deadline);
    lent->give_back();
    return answer;
  } catch (const DeviceLost&) {
    if (!lent->used_before()) throw;
  }
  lent.reset();
  lent = pool.checkout(deadline, true);
  Bytes answer = exchange(**lent, frame, expected_bytes, deadline);
  lent->give_back();
  return answer;
}

template <class Element>
void add(Bytes& answer, const Bytes& former) {
  auto* to = reinterpret_cast<Element*>(answer.data());
  const auto* from = reinterpret_cast<const Element*>(former.data());
  for (std::size_t i = 0; i < answer.size() / sizeof(Element); ++i) to[i] += from[i];
}

void add_former(Bytes& answer, const GemmCall& call, const MatrixView& c) {
  Bytes former(answer.size());
  pack_rows(former.data(), c, 1, call.m, call.n, shmgemm_dtype_bytes(call.dtype_out));
  if (call.dtype_out == SHMGEMM_DTYPE_FLOAT32) return add<float>(answer, former);
  if (call.dtype_out == SHMGEMM_DTYPE_INT32) return add<std::uint32_t>(answer, former);
  throw Unsupported(text_of(call) + ": inline ops accumulate into float32 and int32 alone");
}

}  // namespace

void inline_gemm(ConnectionPool& pool, const GemmCall& call, double timeout_s) {
  const std::uint32_t out_bytes = shmgemm_dtype_bytes(call.dtype_out);
  const std::uint64_t expected = std::uint64_t{call.m} * call.n * out_bytes;
  const auto limit =
      std::chrono::duration_cast<region::Nanoseconds>(std::chrono::duration<double>(timeout_s));
  for (std::uint32_t i = 0; i < call.batch; ++i) {
    const Bytes frame = frame_of(call, i);
    Bytes answer = ask(pool, frame, expected, region::Clock::now() + limit);
    const MatrixView c = entry(call.c, i, out_bytes);
    if (call.accumulate) add_former(answer, call, c);
    unpack_rows(answer.data(), c, 1, call.m, call.n, out_bytes);
  }
}

}  // namespace shmgemm::client
