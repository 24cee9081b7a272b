// Which process are we? A session and its blocks belong to the process that opened them; after
// fork() the child must touch neither their locks nor their engine.
#pragma once

#include <cstdint>

namespace shmgemm::client {

std::uint64_t process_epoch();  // another number in a forked child

}  // namespace shmgemm::client
