#include "client/product.h"

#include "abi/shmgemm_validate.h"

namespace shmgemm::client {

Product::Product(Heap& heap, const GemmCall& call) : call_(call) {
  const std::uint32_t in_bytes = shmgemm_dtype_bytes(call.dtype_in);
  const std::uint32_t out_bytes = shmgemm_dtype_bytes(call.dtype_out);
  if (in_bytes == 0 || out_bytes == 0) throw Unsupported(text_of(call) + ": unknown dtype");
  a_ = place_input(heap, call.a, call.batch, call.m, call.k, in_bytes);
  b_ = place_input(heap, call.b, call.batch, call.k, call.n, in_bytes);
  if (call.bias != nullptr) {
    const MatrixView row{call.bias, 0, static_cast<std::int64_t>(call.n), 1};
    bias_ = place_input(heap, row, 1, 1, call.n, 4);
  }
  c_ = place_output(heap, call.c, call.batch, call.m, call.n, out_bytes, call.accumulate);
  if (c_.overlaps(a_) || c_.overlaps(b_) || c_.overlaps(bias_)) {
    c_ = stage_output(heap, call.c, call.batch, call.m, call.n, out_bytes, call.accumulate);
  }
  bytes_copied_ =
      call.bytes_copied + a_.bytes_copied + b_.bytes_copied + c_.bytes_copied + bias_.bytes_copied;
}

shmgemm_command Product::command() const {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_GEMM;
  command.dtype_in = call_.dtype_in;
  command.dtype_out = call_.dtype_out;
  command.device = call_.device;
  command.flags = (a_.transposed ? SHMGEMM_FLAG_TRANSPOSE_A : 0u) |
                  (b_.transposed ? SHMGEMM_FLAG_TRANSPOSE_B : 0u) |
                  (call_.bias != nullptr ? SHMGEMM_FLAG_BIAS : 0u) |
                  (call_.accumulate ? SHMGEMM_FLAG_ACCUMULATE : 0u);
  command.m = call_.m;
  command.n = call_.n;
  command.k = call_.k;
  command.batch = call_.batch;
  command.stream = call_.stream != 0 ? call_.stream : call_.device;
  command.lda = a_.leading_dimension;
  command.ldb = b_.leading_dimension;
  command.ldc = c_.leading_dimension;
  command.stride_a = a_.batch_stride;
  command.stride_b = b_.batch_stride;
  command.stride_c = c_.batch_stride;
  command.a = a_.offset;
  command.b = b_.offset;
  command.c = c_.offset;
  command.bias = bias_.offset;
  return command;
}

void Product::fetch() {
  bytes_copied_ += fetch_output(c_, call_.c, call_.batch, call_.m, call_.n,
                                shmgemm_dtype_bytes(call_.dtype_out));
}

std::uint64_t macs_of(const GemmCall& call) {
  return std::uint64_t{call.m} * call.n * call.k * call.batch;
}

std::uint64_t bytes_of(const GemmCall& call) {
  const std::uint64_t in_bytes = shmgemm_dtype_bytes(call.dtype_in);
  const std::uint64_t elements_in = (std::uint64_t{call.m} + call.n) * call.k;
  const std::uint64_t c_bytes =
      std::uint64_t{call.m} * call.n * shmgemm_dtype_bytes(call.dtype_out);
  return call.batch * (elements_in * in_bytes + c_bytes + (call.bias != nullptr ? 4u * call.n : 0));
}

std::string text_of(const GemmCall& call) {
  return std::string(call.name) + " " + std::to_string(call.m) + "x" + std::to_string(call.k) +
         " @ " + std::to_string(call.k) + "x" + std::to_string(call.n) +
         (call.batch == 1 ? "" : " x" + std::to_string(call.batch));
}

}  // namespace shmgemm::client
