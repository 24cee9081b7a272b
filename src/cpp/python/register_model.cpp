// The timing models for Python: their tables of parameters, the check of a hardware description,
// and one GEMM's timing without a session. Errors about a parameter arrive as ValueError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <utility>

#include "model/event_queue.h"
#include "model/hardware.h"
#include "model/registry.h"

namespace py = pybind11;

namespace shmgemm {
namespace {

using model::GemmTiming;

model::GemmTiming simulate(const model::Hardware& hardware, const model::GemmShape& shape) {
  model::EventQueue queue;
  GemmTiming result;
  bool ended = false;
  const auto device = hardware.create_model(queue, nullptr);
  device->start(shape, [&](const GemmTiming& timing) {
    result = timing;
    ended = true;
  });
  while (!ended) queue.run_next();
  return result;
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
  const GemmTiming timing = simulate(hardware, shape);

  model::EventQueue unused;
  py::dict report;
  report["cycles"] = timing.total();
  report["busy_cycles"] = timing.busy;
  report["fill_drain_cycles"] = timing.fill_drain;
  report["memory_stall_cycles"] = timing.memory_stall;
  report["dispatch_cycles"] = timing.dispatch;
  report["macs"] = timing.macs;
  report["peak_macs_per_cycle"] = hardware.create_model(unused, nullptr)->peak_macs_per_cycle();
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
      .def("__repr__", [](const ModelInfo& i) { return "<ModelInfo " + i.name + ">"; });

  m.def("models", &model::models);
  m.def("device_parameters", &model::device_parameters);
  m.def(
      "check_hardware",
      [](const model::ParameterMap& given) { return model::Hardware(given).parameters().text(); },
      py::arg("parameters"));
  m.def("simulate_gemm", &simulate_gemm, py::arg("parameters"), py::arg("m"), py::arg("n"),
        py::arg("k"), py::arg("batch") = 1, py::kw_only(), py::arg("input_bytes") = 4,
        py::arg("output_bytes") = 4, py::arg("bias") = false, py::arg("accumulate") = false,
        py::arg("shared_a") = false, py::arg("shared_b") = false);
  m.def("parse_quantity", &parse_quantity, py::arg("name"), py::arg("text"), py::arg("unit"),
        py::arg("minimum") = 0, py::arg("maximum") = UINT64_MAX);
}

}  // namespace shmgemm
