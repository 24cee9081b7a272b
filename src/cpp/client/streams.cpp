#include "client/streams.h"

#include <utility>

namespace shmgemm::client {

void Streams::sent(std::uint32_t stream, StreamMark op) {
  const std::lock_guard<std::mutex> lock(mutex_);
  streams_[stream].last = op;
  used_.store(true, std::memory_order_relaxed);
}

StreamMark Streams::last(std::uint32_t stream) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = streams_.find(stream);
  return found == streams_.end() ? StreamMark{} : found->second.last;
}

void Streams::wait(std::uint32_t stream, StreamMark op) {
  if (op.channel == nullptr) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  streams_[stream].waits.push_back(op);
  used_.store(true, std::memory_order_relaxed);
}

std::vector<StreamMark> Streams::take_dependencies(std::uint32_t stream, const Channel& channel) {
  std::vector<StreamMark> found;
  if (!used_.load(std::memory_order_relaxed)) return found;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto at = streams_.find(stream);
  if (at == streams_.end()) return found;
  found = std::exchange(at->second.waits, {});
  const StreamMark last = at->second.last;
  if (last.channel != nullptr && last.channel != &channel) found.push_back(last);
  return found;
}

}  // namespace shmgemm::client
