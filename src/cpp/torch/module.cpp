// shmgemm._torch: the ops' kernel and autograd in C++. Importing it registers nothing: ops.py first
// compares the version of torch it was built for, then calls register_kernels().
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include "torch/async.h"
#include "torch/gradients.h"
#include "torch/kernels.h"

namespace shmgemm::torch_op {
namespace {

// Registrations last as long as the process: the library object is never destroyed.
template <class... Kernels>
void implement(c10::DispatchKey key, Kernels... kernels) {
  auto* library = new torch::Library(torch::Library::IMPL, "shmgemm", std::make_optional(key),
                                     __FILE__, __LINE__);
  (library->impl(kernels.first, kernels.second), ...);
}

void register_kernels() {
  implement(c10::DispatchKey::CPU, std::make_pair("gemm", &gemm_cpu),
            std::make_pair("linear", &linear_cpu));
  implement(c10::DispatchKey::Autograd, std::make_pair("gemm", &gemm_autograd),
            std::make_pair("linear", &linear_autograd));
}

}  // namespace
}  // namespace shmgemm::torch_op

PYBIND11_MODULE(_torch, module) {
  module.attr("TORCH_VERSION") = SHMGEMM_TORCH_VERSION;
  shmgemm::torch_op::register_async(module);
  module.def("register_kernels", &shmgemm::torch_op::register_kernels);
}
