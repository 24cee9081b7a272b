// A channel that goes directly to whoever serves queue pair 0 of its heap's region.
#pragma once

#include <memory>

#include "client/channel.h"
#include "client/ring_port.h"

inline void begin_direct(shmgemm::client::Heap& heap, shmgemm::client::Channel& channel) {
  heap.region().begin_generation();
  channel.begin(std::make_unique<shmgemm::client::RingPort>(heap.region(), 0),
                heap.region().generation());
}
