// Report blocks: what does not fit into a completion, written where the client asked for it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/timing_model.h"

namespace shmgemm::engine {

// Writes at most SHMGEMM_REPORT_BYTES at `block`; returns the bytes written.
std::uint32_t write_gemm_report(std::byte* block, const model::GemmTiming& timing,
                                std::uint64_t peak_macs_per_cycle);

}  // namespace shmgemm::engine
