#include "client/ledger.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "client/product.h"
#include "client/report.h"

namespace shmgemm::client {

std::uint64_t steady_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

void Ledger::count_start() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++totals_.engine_starts;
}

void Ledger::count_reject() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++totals_.rejects;
}

void Ledger::count(const GemmCall& call, const shmgemm_completion& completion,
                   std::uint64_t bytes_copied) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++totals_.ops;
  totals_.macs += macs_of(call);
  totals_.cycles += completion.end_cycles - completion.start_cycles;
  totals_.busy_cycles += completion.busy_cycles;
  totals_.fill_drain_cycles += completion.fill_drain_cycles;
  totals_.memory_stall_cycles += completion.memory_stall_cycles;
  totals_.now_cycles = std::max(totals_.now_cycles, completion.end_cycles);
  totals_.bytes_copied += bytes_copied;
}

void Ledger::record(const GemmCall& call, const shmgemm_completion& completion,
                    std::uint64_t bytes_copied, const Origin& origin, const Block* report) {
  OpRecord record;
  record.name = call.name;
  record.scope = origin.scope;
  record.generation = origin.generation;
  record.stream = call.stream;
  record.m = call.m;
  record.n = call.n;
  record.k = call.k;
  record.batch = call.batch;
  record.dtype_in = call.dtype_in;
  record.dtype_out = call.dtype_out;
  record.device = call.device;
  record.start_cycles = completion.start_cycles;
  record.end_cycles = completion.end_cycles;
  record.busy_cycles = completion.busy_cycles;
  record.fill_drain_cycles = completion.fill_drain_cycles;
  record.memory_stall_cycles = completion.memory_stall_cycles;
  record.host_start_ns = origin.host_start_ns;
  record.bytes_copied = bytes_copied;
  record.macs = macs_of(call);
  if (report != nullptr) {
    GemmReport said = read_gemm_report(*report, completion);
    record.peak_macs_per_cycle = said.head.peak_macs_per_cycle;
    record.folds = said.head.folds;
    record.mapping_efficiency = said.head.mapping_efficiency;
    record.compute_utilization = said.head.compute_utilization;
    std::memcpy(record.read_bytes, said.head.read_bytes, sizeof said.head.read_bytes);
    std::memcpy(record.write_bytes, said.head.write_bytes, sizeof said.head.write_bytes);
    record.timeline = std::move(said.timeline);
  }
  record.host_ns = steady_ns() - origin.host_start_ns;
  const std::lock_guard<std::mutex> lock(mutex_);
  records_.push_back(std::move(record));
}

Stats Ledger::totals() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return totals_;
}

std::vector<OpRecord> Ledger::take_records() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(records_, {});
}

}  // namespace shmgemm::client
