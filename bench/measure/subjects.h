// What can be measured, each with its floor in the same run.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "samples.h"

namespace shmgemm::measure {

struct Options {
  std::string engine_path;
  std::vector<std::string> engine_words;
  std::map<std::string, std::string> hardware;
  std::uint64_t rounds = 5;
  std::uint64_t samples = 1000;  // of a round
  std::uint32_t depth = 1;
  std::uint32_t m = 0, n = 0, k = 0;
  std::uint32_t threads = 0;     // 0: one for each CPU
  std::uint32_t same_split = 1;  // of a product's floor: the engine's; 0: one share a thread
};

Results noop_hot(const Options& options);      // both sides polling, as many CPUs as allowed
Results noop_one_cpu(const Options& options);  // both sides on one CPU
Results noop_parked(const Options& options);   // the engine asleep in the kernel
Results commands(const Options& options);      // millions a second at a depth
Results product(const Options& options);       // a float32 GEMM beside bare OpenBLAS calls
Results kernel(const Options& options);  // the engine's kernel alone, in this process; no floor
Results timing(const Options& options);  // a GEMM's timing, by the model alone, in this process

}  // namespace shmgemm::measure
