// What goes into a session and comes out of it: products, futures, completions, records.
#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "python/bind.h"
#include "python/call.h"
#include "python/gil.h"

namespace py = pybind11;

namespace shmgemm {
namespace {

using Unlocked = py::call_guard<GilRelease>;

MatrixView view_of(const View& view) {
  return {reinterpret_cast<const void*>(std::get<0>(view)), std::get<1>(view), std::get<2>(view),
          std::get<3>(view)};
}

void register_records(py::module_& module) {
  using namespace py::literals;
  py::class_<shmgemm_completion>(module, "Completion")
      .def_readonly("id", &shmgemm_completion::id)
      .def_readonly("status", &shmgemm_completion::status)
      .def_readonly("device", &shmgemm_completion::device)
      .def_readonly("start_cycles", &shmgemm_completion::start_cycles)
      .def_readonly("end_cycles", &shmgemm_completion::end_cycles)
      .def_readonly("busy_cycles", &shmgemm_completion::busy_cycles)
      .def_readonly("fill_drain_cycles", &shmgemm_completion::fill_drain_cycles)
      .def_readonly("memory_stall_cycles", &shmgemm_completion::memory_stall_cycles);
  const auto table = [](const std::uint64_t (&values)[SHMGEMM_LEVELS][SHMGEMM_OPERANDS]) {
    std::vector<std::vector<std::uint64_t>> rows;
    for (const auto& row : values) rows.emplace_back(std::begin(row), std::end(row));
    return rows;
  };
  py::class_<GemmCall>(module, "GemmCall")
      .def(py::init(&call_of), "name"_a, "m"_a, "n"_a, "k"_a, "batch"_a, "dtype_in"_a,
           "dtype_out"_a, "a"_a, "b"_a, "c"_a, "bias"_a = 0, "accumulate"_a = false, "device"_a = 0,
           "after"_a = nullptr)
      .def_readwrite("bytes_copied", &GemmCall::bytes_copied);
  py::class_<OpRecord>(module, "OpRecord")
      .def_property_readonly("name", [](const OpRecord& self) { return self.name; })
      .def_readonly("scope", &OpRecord::scope)
      .def_readonly("m", &OpRecord::m)
      .def_readonly("n", &OpRecord::n)
      .def_readonly("k", &OpRecord::k)
      .def_readonly("batch", &OpRecord::batch)
      .def_readonly("dtype_in", &OpRecord::dtype_in)
      .def_readonly("dtype_out", &OpRecord::dtype_out)
      .def_readonly("device", &OpRecord::device)
      .def_readonly("stream", &OpRecord::stream)
      .def_readonly("generation", &OpRecord::generation)
      .def_readonly("start_cycles", &OpRecord::start_cycles)
      .def_readonly("end_cycles", &OpRecord::end_cycles)
      .def_readonly("busy_cycles", &OpRecord::busy_cycles)
      .def_readonly("fill_drain_cycles", &OpRecord::fill_drain_cycles)
      .def_readonly("memory_stall_cycles", &OpRecord::memory_stall_cycles)
      .def_readonly("host_start_ns", &OpRecord::host_start_ns)
      .def_readonly("host_ns", &OpRecord::host_ns)
      .def_readonly("bytes_copied", &OpRecord::bytes_copied)
      .def_readonly("macs", &OpRecord::macs)
      .def_readonly("peak_macs_per_cycle", &OpRecord::peak_macs_per_cycle)
      .def_readonly("folds", &OpRecord::folds)
      .def_readonly("mapping_efficiency", &OpRecord::mapping_efficiency)
      .def_readonly("compute_utilization", &OpRecord::compute_utilization)
      .def_property_readonly("read_bytes",
                             [table](const OpRecord& self) { return table(self.read_bytes); })
      .def_property_readonly("write_bytes",
                             [table](const OpRecord& self) { return table(self.write_bytes); })
      .def_property_readonly("timeline", [](const OpRecord& self) {
        return py::bytes(reinterpret_cast<const char*>(self.timeline.data()),
                         self.timeline.size() * sizeof(shmgemm_timeline_entry));
      });
}

void register_futures(py::module_& module) {
  using namespace py::literals;
  py::class_<Future, std::shared_ptr<Future>>(module, "Future")
      .def("done", &Future::done, Unlocked())
      .def("wait", &Future::wait, "timeout_s"_a, Unlocked())
      .def("result", &Future::result, Unlocked())
      .def("cancel", &Future::cancel, Unlocked());
  py::class_<StreamMark>(module, "StreamMark");
  module.def("set_current_stream", &set_current_stream, "stream"_a);
  module.def("current_stream", &current_stream);
  module.attr("FIRST_STREAM") = kFirstStream;
}

}  // namespace

GemmCall call_of(const std::string& name, std::uint32_t m, std::uint32_t n, std::uint32_t k,
                 std::uint32_t batch, std::uint8_t dtype_in, std::uint8_t dtype_out, const View& a,
                 const View& b, const View& c, std::uintptr_t bias, bool accumulate,
                 std::uint8_t device, const std::shared_ptr<Future>& after) {
  GemmCall call;
  call.name = interned(name);
  call.m = m;
  call.n = n;
  call.k = k;
  call.batch = batch;
  call.dtype_in = dtype_in;
  call.dtype_out = dtype_out;
  call.a = view_of(a);
  call.b = view_of(b);
  call.c = view_of(c);
  call.bias = reinterpret_cast<const void*>(bias);
  call.accumulate = accumulate;
  call.device = device;
  call.stream = current_stream();
  if (after != nullptr) call.after = after->mark();
  return call;
}

void register_calls(py::module_& module) {
  register_futures(module);
  register_records(module);
}

}  // namespace shmgemm
