// From tensors to a command: shapes, types and strides that one command can say. All else is the
// Python kernel's.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "client/session.h"

namespace shmgemm::torch_op {

struct Described {
  GemmCall call;                            // without C
  c10::SmallVector<std::int64_t, 5> shape;  // of the result
  at::ScalarType out_type = at::kFloat;
  at::Tensor device_bias;  // as devices read it: dense, float32 for every float type

  std::uint64_t result_bytes() const;
  void put_result(void* data);  // where C is to lie, dense
};

// False where one command cannot say it, or it is an error.
bool describe_gemm(const at::Tensor& a, const at::Tensor& b, std::int64_t sim_device,
                   std::string_view label, Described& described);
bool describe_linear(const at::Tensor& input, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                     std::string_view label, Described& described);

// A dense tensor in memory of a block, which it keeps.
at::Tensor tensor_in(const std::shared_ptr<Block>& block, void* data, at::IntArrayRef shape,
                     at::ScalarType type);

}  // namespace shmgemm::torch_op
