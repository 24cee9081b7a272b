// What a session remembers of its streams: the last op that was sent in each without waiting for
// it, and the ops of other streams that the next one has to wait for. Within one channel the engine
// keeps the order of a stream by itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "client/channel.h"

namespace shmgemm::client {

// Ids are unique in a channel for as long as it lives, whatever engines come and go.
struct SentOp {
  Channel* channel = nullptr;  // null: none
  std::uint64_t id = 0;
  std::uint32_t generation = 0;  // of the engine it went to, or of one before
};

class Streams {
 public:
  void sent(std::uint32_t stream, SentOp op);
  SentOp last(std::uint32_t stream) const;
  void wait(std::uint32_t stream, SentOp op);  // what is sent next in `stream` comes after `op`

  // What the next op of the stream, which goes to `channel`, has to wait for.
  std::vector<SentOp> take_dependencies(std::uint32_t stream, const Channel& channel);

 private:
  struct Stream {
    SentOp last;
    std::vector<SentOp> waits;
  };

  std::atomic<bool> used_{false};
  mutable std::mutex mutex_;
  std::unordered_map<std::uint32_t, Stream> streams_;
};

}  // namespace shmgemm::client
