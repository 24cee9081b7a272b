// Products that are sent without waiting, and several in one submission, straight from tensors:
// past the dispatcher, so for plain CPU tensors outside of autograd alone. ops.py sees to that.
#pragma once

#include <pybind11/pybind11.h>

namespace shmgemm::torch_op {

void register_async(pybind11::module_& module);

}  // namespace shmgemm::torch_op
