// Where the extension calls the Python package: its kernels for what the fast path leaves, and its
// fallback for what the device failed at. Python exceptions pass through torch unchanged.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "region/error.h"
#include "torch/describe.h"

namespace shmgemm::torch_op {

at::Tensor python_gemm(const at::Tensor& a, const at::Tensor& b,
                       std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                       std::string_view scope, std::string_view label);
at::Tensor python_linear(const at::Tensor& input, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                         std::string_view scope, std::string_view label);

// Their autograd at a level of functorch, where torch allows no autograd function in C++.
at::Tensor python_gemm_autograd(c10::DispatchKeySet keys, const at::Tensor& a, const at::Tensor& b,
                                std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                                std::string_view scope, std::string_view label);
at::Tensor python_linear_autograd(c10::DispatchKeySet keys, const at::Tensor& input,
                                  const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                  std::int64_t sim_device, std::string_view scope,
                                  std::string_view label);

// The product by torch, counted and warned about, or the error as its Python class. B is K x N.
at::Tensor after_error(const Error& error, const Described& described, const at::Tensor& a,
                       const at::Tensor& b, const std::optional<at::Tensor>& bias);

// The error as its Python class; with the GIL held, for a function of the module.
[[noreturn]] void raise(const Error& error);

// The exception that Python's signal handler raised during a wait (Ctrl-C).
[[noreturn]] void raise_interrupt();

}  // namespace shmgemm::torch_op
