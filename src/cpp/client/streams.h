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

class Streams {
 public:
  void sent(std::uint32_t stream, StreamMark op);
  StreamMark last(std::uint32_t stream) const;
  void wait(std::uint32_t stream, StreamMark op);  // what is sent next in `stream` comes after `op`

  // What the next op of the stream, which goes to `channel`, has to wait for.
  std::vector<StreamMark> take_dependencies(std::uint32_t stream, const Channel& channel);

 private:
  struct Stream {
    StreamMark last;
    std::vector<StreamMark> waits;
  };

  std::atomic<bool> used_{false};
  mutable std::mutex mutex_;
  std::unordered_map<std::uint32_t, Stream> streams_;
};

}  // namespace shmgemm::client
