// Products whose types are not all float32: operands are widened to float32 a block at a time into
// a scratch of about 1 MB a thread, multiplied by OpenBLAS, and rounded once into C.
#pragma once

#include "compute/split.h"

namespace shmgemm::compute {

void run_widened(const Gemm& gemm, const Part& part, std::uint64_t entry);

}  // namespace shmgemm::compute
