// Which session the calling thread computes on. Where a thread finds no session any more because
// another thread closed that one, its op ends in Closed, once; a default session, of other hardware
// and strictness, must not open unseen.
#pragma once

#include <atomic>
#include <memory>

namespace shmgemm::client {

using ClosedFlag = std::shared_ptr<const std::atomic<bool>>;

void note_use(const ClosedFlag& closed);  // the session whose end sets the flag
void forget_use();                        // the thread knows, or ended that session itself

}  // namespace shmgemm::client
