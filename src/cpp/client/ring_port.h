// The direct way: one queue pair of the region, whose other end is an engine.
#pragma once

#include "client/port.h"
#include "region/region.h"
#include "region/ring.h"

namespace shmgemm::client {

class RingPort final : public Port {
 public:
  RingPort(region::Region& region, std::uint32_t queue_pair)
      : engine_(region.engine()),
        self_(region.client(queue_pair)),
        waiter_(self_),
        commands_(region.queue_pair(queue_pair)->commands, SHMGEMM_RING_SLOTS),
        completions_(region.queue_pair(queue_pair)->completions, SHMGEMM_RING_SLOTS) {}

  void publish(const shmgemm_command& command) override { commands_.publish(command); }
  void ring() override { region::wake_if_sleeping(engine_); }
  bool poll(shmgemm_completion& completion) override { return completions_.poll(completion); }
  bool wait(const std::atomic<bool>& stop, region::Nanoseconds limit,
            region::Expect expect) override {
    return waiter_.wait(
        [&] { return completions_.ready() || stop.load(std::memory_order_seq_cst); }, limit,
        expect);
  }
  void wake() override { region::wake(self_); }

 private:
  shmgemm_peer* engine_;
  shmgemm_peer* self_;
  region::Waiter waiter_;
  region::RingProducer<shmgemm_command> commands_;
  region::RingConsumer<shmgemm_completion> completions_;
};

}  // namespace shmgemm::client
