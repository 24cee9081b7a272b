// The CPU kernels' fast path: one command for operands whose strides one command can say. All else
// (other shapes, refusals, no session yet) is the Python kernel's, so both mean the same.
#pragma once

#include "torch/schema.h"

namespace shmgemm::torch_op {

GemmSignature gemm_cpu;
LinearSignature linear_cpu;

}  // namespace shmgemm::torch_op
