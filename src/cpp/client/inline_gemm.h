// A product whose matrices travel: op 0 and 1 of the wire protocol, for a device server whose
// region this process cannot map. The answer carries C alone, no cycles.
#pragma once

#include "client/connection_pool.h"
#include "client/session.h"

namespace shmgemm::client {

// C = A B (+ bias) (+ C), batch by batch. Unsupported for a type the protocol does not carry. Tries
// again once where a connection that was used before turns out to be dead.
void inline_gemm(ConnectionPool& pool, const GemmCall& call, double timeout_s);

}  // namespace shmgemm::client
