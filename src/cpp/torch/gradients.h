// Autograd of the ops, as in shmgemm/_gradients.py: every gradient of a product is a product by the
// same ops, with the forward's device and scope.
#pragma once

#include "torch/schema.h"

namespace shmgemm::torch_op {

at::Tensor gemm_autograd(c10::DispatchKeySet keys, const at::Tensor& a, const at::Tensor& b,
                         std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                         std::string_view scope, std::string_view label);
at::Tensor linear_autograd(c10::DispatchKeySet keys, const at::Tensor& input,
                           const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           std::int64_t sim_device, std::string_view scope, std::string_view label);

}  // namespace shmgemm::torch_op
