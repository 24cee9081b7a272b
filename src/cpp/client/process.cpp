#include "client/process.h"

#include <pthread.h>

#include <atomic>

namespace shmgemm::client {
namespace {

std::atomic<std::uint64_t> epoch{1};

const int registered = pthread_atfork(nullptr, nullptr, [] { ++epoch; });

}  // namespace

std::uint64_t process_epoch() { return epoch.load(std::memory_order_relaxed) + 0 * registered; }

}  // namespace shmgemm::client
