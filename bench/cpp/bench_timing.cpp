// What the timing of one GEMM costs: start, events, end, for each preset of the package.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "model/event_queue.h"
#include "model/hardware.h"

namespace {

using namespace shmgemm::model;

// The [hardware] of a preset: lines of the form name = "value" or name = value.
ParameterMap parameters_of(const std::filesystem::path& preset) {
  std::ifstream file(preset);
  ParameterMap parameters;
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.front() == '[') inside = line == "[hardware]";
    const std::size_t equals = line.find(" = ");
    if (!inside || equals == std::string::npos) continue;
    std::string value = line.substr(equals + 3);
    if (value.front() == '"') value = value.substr(1, value.rfind('"') - 1);
    parameters[line.substr(0, equals)] = value;
  }
  return parameters;
}

void timing(benchmark::State& state, const ParameterMap& parameters) {
  EventQueue queue;
  const auto device = Hardware(parameters).create_model(queue, nullptr);
  GemmShape shape;
  shape.m = static_cast<std::uint64_t>(state.range(0));
  shape.n = static_cast<std::uint64_t>(state.range(1));
  shape.k = static_cast<std::uint64_t>(state.range(2));
  std::uint64_t cycles = 0;
  for (auto _ : state) {
    const std::uint64_t begin = queue.now();
    bool ended = false;
    device->start(shape, [&](const GemmTiming& timing) {
      ended = timing.macs == shape.m * shape.n * shape.k;
    });
    while (!ended && queue.size() > 0) queue.run_next();
    if (!ended) {
      state.SkipWithError("a timed GEMM is incomplete");
      break;
    }
    cycles += queue.now() - begin;
  }
  state.counters["cycles/s"] =
      benchmark::Counter(static_cast<double>(cycles), benchmark::Counter::kIsRate);
}

// M, N, K: one row, a transformer's layer, a square one.
void shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"m", "n", "k"})
      ->Args({1, 1536, 384})
      ->Args({128, 384, 1536})
      ->Args({1024, 1024, 1024});
}

const bool registered = [] {
  for (const auto& entry : std::filesystem::directory_iterator(SHMGEMM_PRESETS)) {
    const std::string name = "timing/" + entry.path().stem().string();
    const ParameterMap parameters = parameters_of(entry.path());
    shapes(benchmark::RegisterBenchmark(
        name.c_str(), [parameters](benchmark::State& state) { timing(state, parameters); }));
  }
  return true;
}();

}  // namespace
