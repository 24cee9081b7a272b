#include "model/machine.h"

#include <string>

namespace shmgemm::model {
namespace {

constexpr std::uint64_t kLargestElementBytes = 4;

Dataflow dataflow_of(const std::string& name) {
  if (name == "ws") return Dataflow::kWeightStationary;
  if (name == "is") return Dataflow::kInputStationary;
  return Dataflow::kOutputStationary;
}

void require(const Parameters& parameters, const std::string& name, std::uint64_t rows,
             std::uint64_t columns, const std::string& of) {
  const std::uint64_t least = 2 * rows * columns * kLargestElementBytes;
  if (parameters.count(name) >= least) return;
  throw ParameterError(name + " = \"" + parameters.text().at(name) + "\": too small; two tiles " +
                       of + " of " + std::to_string(rows) + "x" + std::to_string(columns) +
                       " elements of 4 bytes need at least \"" +
                       format_quantity(Unit::kBytes, least) + "\"");
}

}  // namespace

Machine::Machine(const Parameters& parameters)
    : dataflow(dataflow_of(parameters.choice("dataflow"))),
      array{parameters.count("rows"), parameters.count("cols")},
      cores(parameters.count("cores")),
      arrays(parameters.count("arrays")),
      clock_hz(parameters.count("clock")),
      memory_bw(parameters.choice("memory") == "ideal" ? 0 : parameters.count("memory_bw")),
      half_a_bytes(parameters.count("scratchpad_a") / 2),
      half_b_bytes(parameters.count("scratchpad_b") / 2),
      half_c_bytes(parameters.count("accumulator") / 2),
      dispatch(parameters.count("dispatch")) {
  const Granules least = granules(*this);
  require(parameters, "scratchpad_a", least.m, least.k, "of A");
  require(parameters, "scratchpad_b", least.k, least.n, "of B");
  require(parameters, "accumulator", least.m, least.n, "of C");
}

Granules granules(const Machine& machine) {
  const auto [rows, columns] = machine.array;
  switch (machine.dataflow) {
    case Dataflow::kWeightStationary:
      return {1, columns, rows};
    case Dataflow::kInputStationary:
      return {columns, 1, rows};
    case Dataflow::kOutputStationary:
      return {rows, columns, rows};
  }
  throw std::logic_error("unknown dataflow");
}

std::vector<Parameter> machine_parameters() {
  const std::uint64_t most_bytes = std::uint64_t{1} << 40;
  return {
      {"cores", Unit::kCount, "1", "cores of the device, which share the memory", 1, 1024, {}},
      {"arrays", Unit::kCount, "1", "arrays of a core, which work in lock step", 1, 64, {}},
      {"rows", Unit::kCount, "128", "rows of processing elements in an array", 1, 4096, {}},
      {"cols", Unit::kCount, "128", "columns of processing elements in an array", 1, 4096, {}},
      {"dataflow",
       Unit::kChoice,
       "ws",
       "what stays in the array: outputs, weights (B) or inputs (A)",
       0,
       0,
       {"os", "ws", "is"}},
      {"scratchpad_a",
       Unit::kBytes,
       "6MiB",
       "a core's for tiles of A, two halves",
       1,
       most_bytes,
       {}},
      {"scratchpad_b",
       Unit::kBytes,
       "6MiB",
       "a core's for tiles of B, two halves",
       1,
       most_bytes,
       {}},
      {"accumulator",
       Unit::kBytes,
       "4MiB",
       "a core's for 4-byte sums of C, two halves",
       1,
       most_bytes,
       {}},
      {"dispatch",
       Unit::kCycles,
       "0",
       "from the start of an op to its first load",
       0,
       1000000000,
       {}},
  };
}

}  // namespace shmgemm::model
