// The timing models for Python: their tables of parameters, the check of a hardware description,
// and one GEMM's timing without a session. Errors about a parameter arrive as ValueError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <utility>

#include "model/hardware.h"
#include "model/plugin.h"
#include "model/registry.h"
#include "model/simulate.h"

namespace py = pybind11;

namespace shmgemm {
namespace {

// Ctrl-C ends a simulation that takes long.
void let_python_interrupt() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

py::dict simulate_gemm(const model::ParameterMap& parameters, std::int64_t m, std::int64_t n,
                       std::int64_t k, std::int64_t batch, std::uint32_t input_bytes,
                       std::uint32_t output_bytes) {
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
        py::arg("output_bytes") = 4);
  m.def("parse_quantity", &parse_quantity, py::arg("name"), py::arg("text"), py::arg("unit"),
        py::arg("minimum") = 0, py::arg("maximum") = UINT64_MAX);
}

}  // namespace shmgemm
