// A queue pair of the region as a connection: the client is another process, which may scribble
// over everything in it.
#pragma once

#include "engine/connection.h"
#include "region/region.h"
#include "region/ring.h"
#include "region/waiter.h"

namespace shmgemm::engine {

class QueuePair : public Connection {
 public:
  QueuePair(region::Region& region, std::uint32_t index)
      : commands_(region.queue_pair(index)->commands, SHMGEMM_RING_SLOTS),
        completions_(region.queue_pair(index)->completions, SHMGEMM_RING_SLOTS),
        client_(region.client(index)) {}

  bool ready() const override { return commands_.ready(); }
  bool take(Arrived& arrived) override { return commands_.poll(arrived.command); }
  void answer(std::uint32_t, const shmgemm_completion& completion) override {
    completions_.publish(completion);
    region::wake_if_sleeping(client_);
  }
  void wake() override { region::wake(client_); }

 private:
  region::RingConsumer<shmgemm_command> commands_;
  region::RingProducer<shmgemm_completion> completions_;
  shmgemm_peer* client_;
};

}  // namespace shmgemm::engine
