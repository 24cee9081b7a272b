// The memories a device may have built in: `ideal`, which takes no time, and `bandwidth`, a pipe
// of fixed width and latency that serves requests first come, first served, whoever makes them.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "model/memory.h"
#include "model/registry.h"
#include "model/scheduler.h"

namespace shmgemm::model {

class IdealMemory final : public Memory {
 public:
  explicit IdealMemory(Scheduler& scheduler) : scheduler_(scheduler) {}
  void read(const Extent& extent, std::function<void()> done) override;
  void write(const Extent& extent, std::function<void()> done) override;

 private:
  Scheduler& scheduler_;
};

// b = bytes_per_second / clock_hz bytes a cycle, as a fraction: nothing is rounded but the cycle in
// which a request ends. A request of n bytes made at t is served from s = max(t, end of the one
// before) to s + n / b, and is done at ceil(s + n / b) + latency.
class BandwidthMemory final : public Memory {
 public:
  BandwidthMemory(Scheduler& scheduler, std::uint64_t clock_hz, std::uint64_t bytes_per_second,
                  Cycle latency);
  void read(const Extent& extent, std::function<void()> done) override;
  void write(const Extent& extent, std::function<void()> done) override;

 private:
  using Ticks = unsigned __int128;

  void serve(std::uint64_t bytes, std::function<void()> done);

  Scheduler& scheduler_;
  // A byte takes ticks_per_byte_, a cycle has ticks_per_cycle_.
  std::uint64_t ticks_per_byte_;
  std::uint64_t ticks_per_cycle_;
  Cycle latency_;
  Ticks free_at_ = 0;
};

std::vector<Parameter> memory_parameters();  // "memory", "memory_bw", "memory_latency"

// The memory that the parameters name; "clock" must be among them.
std::unique_ptr<Memory> create_memory(const Parameters& parameters, Scheduler& scheduler);

}  // namespace shmgemm::model
