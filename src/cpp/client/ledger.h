// What a session has done: totals always, one record for each product while someone profiles.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "client/session.h"

namespace shmgemm::client {

// Where a product was asked for, and what served it.
struct Origin {
  std::uint64_t host_start_ns = 0;
  std::string scope;
  std::uint32_t generation = 0;  // of its engine
};

class Ledger {
 public:
  bool profiling() const { return profiling_.load(std::memory_order_relaxed); }
  void set_profiling(bool on) { profiling_.store(on); }

  void count_start();   // of an engine
  void count_reject();  // of a command, by the engine
  void count(const GemmCall& call, const shmgemm_completion& completion,
             std::uint64_t bytes_copied);
  // `report`: the block the engine filled, or null. ProtocolError where it is not a report.
  void record(const GemmCall& call, const shmgemm_completion& completion,
              std::uint64_t bytes_copied, const Origin& origin, const Block* report);

  Stats totals() const;
  std::vector<OpRecord> take_records();

 private:
  std::atomic<bool> profiling_{false};
  mutable std::mutex mutex_;
  Stats totals_;
  std::vector<OpRecord> records_;
};

std::uint64_t steady_ns();

}  // namespace shmgemm::client
