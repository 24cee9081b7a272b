// What STATUS tells of the server itself, counted since it began.
#pragma once

#include <chrono>
#include <cstdint>

namespace shmgemm::server {

struct Counters {
  std::uint64_t connections = 0;  // accepted
  std::uint64_t errors = 0;       // connections closed because of what came
  std::uint64_t gemm_frames = 0;
  std::uint64_t linear_frames = 0;
  std::uint64_t command_frames = 0;
  std::uint64_t status_frames = 0;
  std::uint64_t bytes_in = 0;  // of all TCP connections
  std::uint64_t bytes_out = 0;
  std::uint64_t matrix_bytes = 0;  // of them, A, B, bias and C of inline ops
  std::uint64_t inline_device = 0;
  std::uint64_t inline_cpu = 0;
  std::uint64_t commands = 0;  // of op 16
  std::uint64_t completions = 0;
  std::uint64_t no_device = 0;   // of them, answered by the server for want of an engine
  std::uint64_t sojourn_ns = 0;  // sum over completions: frame received -> answer queued
  std::uint64_t device_ns = 0;   // sum over completions: command written -> its answer read
};

inline std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

}  // namespace shmgemm::server
