// Float products summed in the order in which a systolic array accumulates (docs/numerics.md): the
// order over k is fixed, lanes lie across the columns of C. Widths of the vector unit differ in
// speed alone; which rows and columns a part has does not matter either.
#pragma once

#include <vector>

#include "compute/split.h"

namespace shmgemm::compute {

enum class VectorUnit { kBaseline, kAvx2, kAvx512 };  // kBaseline: what every such CPU has

VectorUnit widest_vector_unit();                // of this CPU
std::vector<VectorUnit> usable_vector_units();  // for tests: all of this CPU's

// One batch entry's part of a product of float types, with gemm.accumulation_length at least 1.
// (int8 needs no kernel of its own: sums modulo 2^32 do not depend on their order.)
void run_bit_accurate(const Gemm& gemm, const Part& part, std::uint64_t entry,
                      VectorUnit unit = widest_vector_unit());

}  // namespace shmgemm::compute
