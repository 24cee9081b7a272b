#include "torch/python_side.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <string>
#include <utility>
#include <vector>

#include "python/gil.h"

namespace py = pybind11;

namespace shmgemm::torch_op {
namespace {

constexpr const char* kKernels = "shmgemm._kernels";
constexpr const char* kGradients = "shmgemm._gradients";

// torch carries a Python exception through its dispatcher and its autograd engine as a
// python_error.
[[noreturn]] void throw_pending() {
  python_error error;
  error.persist();
  throw std::move(error);
}

template <class... Arguments>
at::Tensor call(const char* module, const char* function, Arguments&&... arguments) {
  const GilAcquire gil;
  try {
    return py::module_::import(module)
        .attr(function)(std::forward<Arguments>(arguments)...)
        .template cast<at::Tensor>();
  } catch (py::error_already_set& error) {
    error.restore();
  }
  throw_pending();
}

const char* class_name(const Error& error) {
  if (dynamic_cast<const DeviceLost*>(&error) != nullptr) return "DeviceLost";
  if (dynamic_cast<const DeviceTimeout*>(&error) != nullptr) return "DeviceTimeout";
  if (dynamic_cast<const ProtocolError*>(&error) != nullptr) return "ProtocolError";
  if (dynamic_cast<const RegionFull*>(&error) != nullptr) return "RegionFull";
  if (dynamic_cast<const Unsupported*>(&error) != nullptr) return "Unsupported";
  if (dynamic_cast<const Closed*>(&error) != nullptr) return "SessionClosed";
  return "ShmgemmError";
}

}  // namespace

at::Tensor python_gemm(const at::Tensor& a, const at::Tensor& b,
                       std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                       std::string_view scope, std::string_view label) {
  using namespace py::literals;
  const GilAcquire gil;
  return call(kKernels, "gemm_cpu", a, b, "out_dtype"_a = out_dtype, "sim_device"_a = sim_device,
              "scope"_a = std::string(scope), "label"_a = std::string(label));
}

at::Tensor python_linear(const at::Tensor& input, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                         std::string_view scope, std::string_view label) {
  using namespace py::literals;
  const GilAcquire gil;
  return call(kKernels, "linear_cpu", input, weight, bias, "sim_device"_a = sim_device,
              "scope"_a = std::string(scope), "label"_a = std::string(label));
}

at::Tensor python_gemm_autograd(c10::DispatchKeySet keys, const at::Tensor& a, const at::Tensor& b,
                                std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                                std::string_view scope, std::string_view label) {
  using namespace py::literals;
  const GilAcquire gil;
  return call(kGradients, "gemm_autograd", keys, a, b, "out_dtype"_a = out_dtype,
              "sim_device"_a = sim_device, "scope"_a = std::string(scope),
              "label"_a = std::string(label));
}

at::Tensor python_linear_autograd(c10::DispatchKeySet keys, const at::Tensor& input,
                                  const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                  std::int64_t sim_device, std::string_view scope,
                                  std::string_view label) {
  using namespace py::literals;
  const GilAcquire gil;
  return call(kGradients, "linear_autograd", keys, input, weight, bias, "sim_device"_a = sim_device,
              "scope"_a = std::string(scope), "label"_a = std::string(label));
}

at::Tensor after_error(const Error& error, const Described& described, const at::Tensor& a,
                       const at::Tensor& b, const std::optional<at::Tensor>& bias) {
  const GilAcquire gil;
  const GemmCall& gemm = described.call;
  return call(kKernels, "after_error", class_name(error), std::string(error.what()),
              py::make_tuple(gemm.m, gemm.n, gemm.k, gemm.batch),
              py::tuple(py::cast(
                  std::vector<std::int64_t>(described.shape.begin(), described.shape.end()))),
              described.out_type, std::string(gemm.name), a, b, bias);
}

void raise(const Error& error) {
  if (dynamic_cast<const Interrupted*>(&error) != nullptr) {
    if (PyErr_Occurred() == nullptr) PyErr_SetNone(PyExc_KeyboardInterrupt);
  } else if (dynamic_cast<const Cancelled*>(&error) != nullptr) {
    py::set_error(py::module_::import("concurrent.futures").attr("CancelledError"), error.what());
  } else {
    py::set_error(py::module_::import("shmgemm.errors").attr(class_name(error)), error.what());
  }
  throw py::error_already_set();
}

void raise_interrupt() {
  const GilAcquire gil;
  if (PyErr_Occurred() == nullptr) PyErr_SetNone(PyExc_KeyboardInterrupt);
  throw_pending();
}

}  // namespace shmgemm::torch_op
