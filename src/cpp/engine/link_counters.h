// What links have done since the engine began: written by the control thread, told by GET_INFO.
#pragma once

#include <atomic>
#include <cstdint>

namespace shmgemm::engine {

struct LinkCounters {
  std::atomic<std::uint64_t> commands{0};    // answered
  std::atomic<std::uint64_t> sojourn_ns{0};  // sum over them: from the socket and back to it
  std::atomic<std::uint64_t> bytes_in{0};
  std::atomic<std::uint64_t> bytes_out{0};
};

}  // namespace shmgemm::engine
