// What a channel hands its commands to and takes completions from: the rings of a queue pair, or a
// connection to a device server. One thread at a time publishes, one at a time waits and polls.
#pragma once

#include <atomic>

#include "abi/shmgemm_abi.h"
#include "region/waiter.h"

namespace shmgemm::client {

class Port {
 public:
  virtual ~Port() = default;

  // What is not flushed may stay here until something that is follows it.
  virtual void publish(const shmgemm_command& command) = 0;
  virtual void ring() {}  // after a publish() or several: wakes an engine that sleeps
  // A private copy of the next completion; false where there is none. ProtocolError where what came
  // can be no completion.
  virtual bool poll(shmgemm_completion& completion) = 0;
  // Until poll() may have something or `stop` is true; false where `limit` passed first.
  virtual bool wait(const std::atomic<bool>& stop, region::Nanoseconds limit,
                    region::Expect expect) = 0;
  virtual void wake() = 0;  // from another thread, which has set `stop`
};

}  // namespace shmgemm::client
