// The report that an engine wrote about a GEMM. Shared memory is read once; what was read is judged
// before anything is made of it.
#pragma once

#include <vector>

#include "abi/shmgemm_abi.h"
#include "client/session.h"

namespace shmgemm::client {

struct GemmReport {
  shmgemm_gemm_report head{};
  std::vector<shmgemm_timeline_entry> timeline;
};

// All zero where the engine wrote none; ProtocolError where what it wrote cannot be one. The
// completion has been validated.
GemmReport read_gemm_report(const Block& block, const shmgemm_completion& completion);

}  // namespace shmgemm::client
