// The timing models for Python: their tables of parameters, the check of a hardware description,
// and one GEMM's timing without a session. Errors about a parameter arrive as ValueError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/hardware.h"
#include "model/machine.h"
#include "model/mapping.h"
#include "model/pe_array.h"
#include "model/plugin.h"
#include "model/registry.h"
#include "model/simulate.h"
#include "python/gil.h"

namespace py = pybind11;

namespace shmgemm {
namespace {

// Ctrl-C ends a simulation that takes long.
void let_python_interrupt() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// A, B and C one behind the other, row-major without gaps; a shared operand has one entry.
void place_densely(model::GemmShape& shape, bool shared_a, bool shared_b) {
  const std::uint64_t a_row = shape.k * shape.input_bytes, b_row = shape.n * shape.input_bytes;
  const std::uint64_t c_row = shape.n * shape.output_bytes;
  const std::uint64_t a_bytes = shape.m * a_row, b_bytes = shape.k * b_row;
  shape.placement[model::kA] = {0, a_row, shared_a ? 0 : a_bytes, false};
  shape.placement[model::kB] = {a_bytes * shape.batch, b_row, shared_b ? 0 : b_bytes, false};
  shape.placement[model::kC] = {(a_bytes + b_bytes) * shape.batch, c_row, shape.m * c_row, false};
}

py::dict simulate_gemm(const model::ParameterMap& parameters, std::int64_t m, std::int64_t n,
                       std::int64_t k, std::int64_t batch, std::uint32_t input_bytes,
                       std::uint32_t output_bytes, bool bias, bool accumulate, bool shared_a,
                       bool shared_b) {
  const std::pair<const char*, std::int64_t> dimensions[] = {
      {"m", m}, {"n", n}, {"k", k}, {"batch", batch}};
  for (const auto& [name, value] : dimensions) {
    if (value < 1 || value > UINT32_MAX) {
      throw py::value_error(std::string(name) + " = " + std::to_string(value) +
                            ": expected a whole number from 1 to 4294967295");
    }
  }
  const model::Hardware hardware(parameters);
  model::GemmShape shape;
  shape.m = static_cast<std::uint64_t>(m);
  shape.n = static_cast<std::uint64_t>(n);
  shape.k = static_cast<std::uint64_t>(k);
  shape.batch = static_cast<std::uint64_t>(batch);
  shape.input_bytes = input_bytes;
  shape.output_bytes = output_bytes;
  shape.bias = bias;
  shape.accumulate = accumulate;
  place_densely(shape, shared_a, shared_b);
  const auto [timing, peak_macs_per_cycle] =
      model::simulate(hardware, shape, &let_python_interrupt);
  py::dict report;
  report["cycles"] = timing.total();
  report["busy_cycles"] = timing.busy;
  report["fill_drain_cycles"] = timing.fill_drain;
  report["memory_stall_cycles"] = timing.memory_stall;
  report["dispatch_cycles"] = timing.dispatch;
  report["macs"] = timing.macs;
  report["peak_macs_per_cycle"] = peak_macs_per_cycle;
  report["clock_hz"] = hardware.clock_hz();
  report["folds"] = timing.folds;
  report["mapping_efficiency"] = timing.mapping_efficiency;
  report["compute_utilization"] = timing.compute_utilization;
  report["read_bytes"] = timing.read_bytes;
  report["write_bytes"] = timing.write_bytes;
  return report;
}

// How the model `systolic` cuts a GEMM (model/mapping.h).
py::dict map_gemm(const model::ParameterMap& parameters, std::uint64_t m, std::uint64_t n,
                  std::uint64_t k, std::uint64_t batch, std::uint32_t input_bytes) {
  const model::Hardware hardware(parameters);
  if (hardware.model().name != "systolic") {
    throw py::value_error("model = \"" + hardware.model().name +
                          "\": a mapping has only \"systolic\"");
  }
  if (m == 0 || n == 0 || k == 0 || batch == 0) {
    throw py::value_error("a dimension of 0: every one must be at least 1");
  }
  model::GemmShape shape;
  shape.m = m;
  shape.n = n;
  shape.k = k;
  shape.batch = batch;
  shape.input_bytes = input_bytes;
  const model::Mapping mapping(model::Machine(hardware.parameters()), shape);
  py::dict report;
  report["tile"] = py::make_tuple(mapping.tile.m, mapping.tile.n, mapping.tile.k);
  report["parts"] = py::make_tuple(mapping.parts.m, mapping.parts.n);
  report["blocks"] = mapping.blocks;
  report["steps"] = mapping.blocks * mapping.k_steps;
  report["inner"] = mapping.m_inner ? "m" : "n";
  return report;
}

model::Dataflow dataflow_of(const std::string& name) {
  if (name == "ws") return model::Dataflow::kWeightStationary;
  if (name == "is") return model::Dataflow::kInputStationary;
  if (name == "os") return model::Dataflow::kOutputStationary;
  throw py::value_error("dataflow = \"" + name + "\": expected ws, is or os");
}

// Cycles of array tiles (m, n, k) back to back on the register-level array; values do not matter.
model::Cycle step_array(const std::string& dataflow, std::uint64_t rows, std::uint64_t columns,
                        const std::vector<std::array<std::uint64_t, 3>>& shapes) {
  using Array = model::PeArray<model::Int8Arithmetic>;
  std::vector<Array::Tile> tiles;
  for (const auto& [m, n, k] : shapes) {
    if (std::max({m, n, k}) > Array::kMaxStream) {
      throw py::value_error("array tile " + std::to_string(m) + "x" + std::to_string(n) + "x" +
                            std::to_string(k) + ": expected at most " +
                            std::to_string(Array::kMaxStream) + " a side");
    }
    tiles.push_back({m, n, k, std::vector<std::int8_t>(m * k), std::vector<std::int8_t>(k * n)});
  }
  const Array array(dataflow_of(dataflow), {rows, columns});
  const GilRelease unlocked;
  return array.run(tiles).cycles;
}

// A quantity that is no model's parameter, such as the size of a region.
std::uint64_t parse_quantity(const std::string& name, const std::string& text,
                             const std::string& unit, std::uint64_t minimum,
                             std::uint64_t maximum) {
  for (const auto known : {model::Unit::kHertz, model::Unit::kBytes, model::Unit::kBytesPerSecond,
                           model::Unit::kCycles, model::Unit::kCount}) {
    if (unit == model::unit_text(known)) {
      return model::parse_quantity({name, known, "", "", minimum, maximum, {}}, text);
    }
  }
  throw py::value_error("unknown unit \"" + unit +
                        "\": expected Hz, bytes, bytes/s, cycles or \"\"");
}

}  // namespace

void register_model(py::module_& m) {
  using model::ModelInfo;
  using model::Parameter;

  py::class_<Parameter>(m, "ParameterInfo")
      .def_readonly("name", &Parameter::name)
      .def_property_readonly("unit", [](const Parameter& p) { return model::unit_text(p.unit); })
      .def_readonly("default", &Parameter::default_value)
      .def_readonly("meaning", &Parameter::meaning)
      .def_readonly("minimum", &Parameter::min)
      .def_readonly("maximum", &Parameter::max)
      .def_property_readonly("legal", [](const Parameter& p) { return model::legal_range_text(p); })
      .def_readonly("choices", &Parameter::choices)
      .def("__repr__", [](const Parameter& p) { return "<ParameterInfo " + p.name + ">"; });
  py::class_<ModelInfo>(m, "ModelInfo")
      .def_readonly("name", &ModelInfo::name)
      .def_readonly("summary", &ModelInfo::summary)
      .def_readonly("parameters", &ModelInfo::parameters)
      .def_readonly("file", &ModelInfo::file)
      .def("__repr__", [](const ModelInfo& i) { return "<ModelInfo " + i.name + ">"; });

  m.def("models", &model::models);
  m.def("load_plugin", &model::load_plugin, py::arg("path"));
  m.attr("MODEL_INTERFACE_VERSION") = model::kInterfaceVersion;
  m.def("device_parameters", &model::device_parameters);
  m.def(
      "check_hardware",
      [](const model::ParameterMap& given) { return model::Hardware(given).parameters().text(); },
      py::arg("parameters"));
  m.def("simulate_gemm", &simulate_gemm, py::arg("parameters"), py::arg("m"), py::arg("n"),
        py::arg("k"), py::arg("batch") = 1, py::kw_only(), py::arg("input_bytes") = 4,
        py::arg("output_bytes") = 4, py::arg("bias") = false, py::arg("accumulate") = false,
        py::arg("shared_a") = false, py::arg("shared_b") = false);
  m.def("map_gemm", &map_gemm, py::arg("parameters"), py::arg("m"), py::arg("n"), py::arg("k"),
        py::arg("batch") = 1, py::kw_only(), py::arg("input_bytes") = 4);
  m.def("step_array", &step_array, py::arg("dataflow"), py::arg("rows"), py::arg("cols"),
        py::arg("tiles"));
  m.def("parse_quantity", &parse_quantity, py::arg("name"), py::arg("text"), py::arg("unit"),
        py::arg("minimum") = 0, py::arg("maximum") = UINT64_MAX);
}

}  // namespace shmgemm
