// The ops as C++ sees them: their signatures (the schemas stand in shmgemm/_library.py) and calls
// of them through torch's dispatcher.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace shmgemm::torch_op {

using GemmSignature = at::Tensor(const at::Tensor& a, const at::Tensor& b,
                                 std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                                 std::string_view scope, std::string_view label);
using LinearSignature = at::Tensor(const at::Tensor& input, const at::Tensor& weight,
                                   const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                                   std::string_view scope, std::string_view label);

inline const c10::TypedOperatorHandle<GemmSignature>& gemm_op() {
  static const auto handle =
      c10::Dispatcher::singleton().findSchemaOrThrow("shmgemm::gemm", "").typed<GemmSignature>();
  return handle;
}

inline const c10::TypedOperatorHandle<LinearSignature>& linear_op() {
  static const auto handle = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("shmgemm::linear", "")
                                 .typed<LinearSignature>();
  return handle;
}

}  // namespace shmgemm::torch_op
