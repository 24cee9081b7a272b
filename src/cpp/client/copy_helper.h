// A second thread for large copies: started at the first one, asleep in the kernel between them. It
// takes no signals, and a process that ends does not wait for it. A forked child starts its own.
#pragma once

#include <cstdint>

namespace shmgemm::client {

// Calls piece(context, i) for each i < pieces, on this thread and, where it is free and there is a
// second CPU, on the helper. Returns when all have returned. Pieces must not throw.
void share_pieces(std::uint64_t pieces, void (*piece)(void* context, std::uint64_t index),
                  void* context);

}  // namespace shmgemm::client
