// Session for Python. Calls that may block release the GIL; while they block, Python's signal
// handlers run.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <cstring>
#include <tuple>
#include <utility>

#include "python/bind.h"
#include "python/call.h"
#include "python/gil.h"
#include "python/typed_block.h"

namespace py = pybind11;

namespace shmgemm {
namespace {

using SessionPtr = std::shared_ptr<Session>;
using Unlocked = py::call_guard<GilRelease>;

// Called without the GIL from a thread that waits; true where a handler raised (Ctrl-C). Handlers
// run in the main thread alone.
bool python_wants_to_stop() {
  if (!in_main_thread() || Py_IsInitialized() == 0) return false;
  const GilAcquire gil;
  return PyErr_CheckSignals() != 0;
}

// Its errors are the client's; Ctrl-C while it boots is left to Python.
std::function<std::string(int)> guest_starter(const py::object& guest) {
  const std::shared_ptr<py::object> held(new py::object(guest), [](py::object* object) {
    if (Py_IsInitialized() == 0) return;
    const GilAcquire gil;
    delete object;
  });
  return [held](int region_fd) {
    const GilAcquire gil;
    try {
      return (*held)(region_fd).cast<std::string>();
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_KeyboardInterrupt)) {
        throw DeviceLost("no guest: " + py::str(error.value()).cast<std::string>());
      }
      error.restore();
      throw Interrupted("interrupted while the guest started");
    }
  };
}

SessionPtr open_session(const std::string& engine_path,
                        const std::vector<std::string>& engine_words,
                        const std::map<std::string, std::string>& parameters,
                        const std::vector<std::string>& plugins, std::uint64_t region_bytes,
                        std::uint32_t devices, std::uint32_t threads, double timeout_s,
                        bool bit_accurate, bool debug, const std::string& link_path,
                        std::uint64_t guest_arena_bytes, const py::object& guest,
                        std::uint32_t processes, std::uint32_t clients) {
  SessionOptions options;
  options.engine_path = engine_path;
  options.engine_words = engine_words;
  options.parameters = parameters;
  options.plugins = plugins;
  options.region_bytes = region_bytes;
  options.devices = devices;
  options.processes = processes;
  options.threads = threads;
  options.timeout_s = timeout_s;
  options.bit_accurate = bit_accurate;
  options.debug = debug;
  options.link_path = link_path;
  options.guest_arena_bytes = guest_arena_bytes;
  options.clients = clients;
  if (!guest.is_none()) options.guest = guest_starter(guest);
  const GilRelease unlocked;
  return Session::open(options);
}

SessionPtr connect_session(const std::string& server, const std::string& region_path,
                           std::uint32_t connections, std::uint32_t devices, double timeout_s,
                           bool bit_accurate, bool debug) {
  SessionOptions options;
  options.server = server;
  options.region_path = region_path;
  options.connections = connections;
  options.devices = devices;
  options.timeout_s = timeout_s;
  options.bit_accurate = bit_accurate;
  options.debug = debug;
  if (region_path.empty()) options.region_bytes = SHMGEMM_MIN_REGION_BYTES;  // nothing lies in it
  const GilRelease unlocked;
  return Session::open(options);
}

SessionPtr attach_session(const std::string& path, double timeout_s, bool bit_accurate,
                          bool debug) {
  SessionOptions options;
  options.attach_path = path;
  options.timeout_s = timeout_s;
  options.bit_accurate = bit_accurate;
  options.debug = debug;
  const GilRelease unlocked;
  return Session::open(options);
}

TypedBlock empty(Session& session, std::vector<std::int64_t> shape, std::uint8_t dtype) {
  const std::uint64_t bytes = packed_bytes(shape, dtype);
  return {session.allocate(bytes), std::move(shape), dtype};
}

shmgemm_completion gemm(Session& session, const std::string& name, std::uint32_t m, std::uint32_t n,
                        std::uint32_t k, std::uint32_t batch, std::uint8_t dtype_in,
                        std::uint8_t dtype_out, const View& a, const View& b, const View& c,
                        std::uintptr_t bias, bool accumulate, std::uint8_t device) {
  const GemmCall call =
      call_of(name, m, n, k, batch, dtype_in, dtype_out, a, b, c, bias, accumulate, device);
  const GilRelease unlocked;
  return session.gemm(call);
}

std::shared_ptr<Future> gemm_async(Session& session, const GemmCall& call) {
  const GilRelease unlocked;
  return session.gemm_async(call);
}

std::vector<shmgemm_completion> gemm_batch(Session& session, const std::vector<GemmCall>& calls) {
  const GilRelease unlocked;
  return session.gemm_batch(calls);
}

py::dict info_dict(Session& session, std::uint8_t device) {
  shmgemm_info info;
  {
    const GilRelease unlocked;
    info = session.info(device);
  }
  py::dict result;
  result["abi"] = py::make_tuple(info.abi_major, info.abi_minor);
  result["devices"] = info.devices;
  result["threads"] = info.threads;
  result["clock_hz"] = info.clock_hz;
  result["peak_macs_per_cycle"] = info.peak_macs_per_cycle;
  result["now_cycles"] = info.now_cycles;
  result["ops"] = info.ops;
  result["rejects"] = info.rejects;
  result["busy_cycles"] = info.busy_cycles;
  result["dtypes"] = info.dtypes;
  result["link_commands"] = info.link_commands;
  result["link_sojourn_ns"] = info.link_sojourn_ns;
  result["link_bytes_in"] = info.link_bytes_in;
  result["link_bytes_out"] = info.link_bytes_out;
  result["memory_bytes"] = info.memory_bytes;
  result["max_compute_units"] = info.max_compute_units;
  result["engine"] = info.engine;
  result["model"] = info.model;
  result["version"] = info.version;
  return result;
}

py::dict stats_dict(const Session& session) {
  const Stats stats = session.stats();
  py::dict result;
  result["ops"] = stats.ops;
  result["commands"] = stats.commands;
  result["macs"] = stats.macs;
  result["cycles"] = stats.cycles;
  result["busy_cycles"] = stats.busy_cycles;
  result["fill_drain_cycles"] = stats.fill_drain_cycles;
  result["memory_stall_cycles"] = stats.memory_stall_cycles;
  result["now_cycles"] = stats.now_cycles;
  result["bytes_copied"] = stats.bytes_copied;
  result["engine_starts"] = stats.engine_starts;
  result["rejects"] = stats.rejects;
  result["region_bytes"] = stats.region_bytes;
  result["heap_bytes"] = stats.heap_bytes;
  result["heap_used_bytes"] = stats.heap_used_bytes;
  return result;
}

std::uint64_t submit_raw(Session& session, const py::bytes& record) {
  const std::string bytes = record;
  shmgemm_command command;
  if (bytes.size() != sizeof command) {
    throw Unsupported("a command has " + std::to_string(sizeof command) + " bytes, " +
                      std::to_string(bytes.size()) + " given");
  }
  std::memcpy(&command, bytes.data(), sizeof command);
  const GilRelease unlocked;
  return session.submit(command);
}

py::bytes wait_raw(Session& session, std::uint64_t id, double timeout_s) {
  shmgemm_completion completion;
  {
    const GilRelease unlocked;
    completion = session.wait(id, timeout_s);
  }
  return py::bytes(reinterpret_cast<const char*>(&completion), sizeof completion);
}

}  // namespace

void register_session(py::module_& module) {
  using namespace py::literals;
  py::class_<Session, SessionPtr>(module, "Session")
      .def(py::init(&open_session), py::kw_only(), "engine_path"_a,
           "engine_words"_a = std::vector<std::string>{},
           "parameters"_a = std::map<std::string, std::string>{},
           "plugins"_a = std::vector<std::string>{}, "region_bytes"_a = 256ull << 20,
           "devices"_a = 1, "threads"_a = 0, "timeout_s"_a = 5.0, "bit_accurate"_a = false,
           "debug"_a = false, "link_path"_a = "", "guest_arena_bytes"_a = 0, "guest"_a = py::none(),
           "processes"_a = 1, "clients"_a = 0)
      .def_static("connect", &connect_session, py::kw_only(), "server"_a, "region_path"_a = "",
                  "connections"_a = 4, "devices"_a = 1, "timeout_s"_a = 5.0,
                  "bit_accurate"_a = false, "debug"_a = false)
      .def_static("attach", &attach_session, py::kw_only(), "path"_a, "timeout_s"_a = 5.0,
                  "bit_accurate"_a = false, "debug"_a = false)
      .def("empty", &empty, "shape"_a, "dtype"_a)
      .def(
          "contains",
          [](const Session& self, std::uintptr_t address, std::uint64_t nbytes) {
            return self.contains(reinterpret_cast<const void*>(address), nbytes);
          },
          "address"_a, "nbytes"_a)
      .def("gemm", &gemm, "name"_a, "m"_a, "n"_a, "k"_a, "batch"_a, "dtype_in"_a, "dtype_out"_a,
           "a"_a, "b"_a, "c"_a, "bias"_a = 0, "accumulate"_a = false, "device"_a = 0)
      .def("gemm_async", &gemm_async, "call"_a)
      .def("gemm_batch", &gemm_batch, "calls"_a)
      .def("mark", &Session::mark, "stream"_a)
      .def("wait_for", &Session::wait_for, "stream"_a, "mark"_a)
      .def("reached", &Session::reached, "mark"_a, Unlocked())
      .def("wait_until", &Session::await, "mark"_a, "timeout_s"_a, Unlocked())
      .def("noop", &Session::noop, "device"_a = 0, Unlocked())
      .def(
          "echo",
          [](Session& self, std::uint64_t x, std::uint64_t y, std::uint64_t z) {
            const shmgemm_completion echo = self.echo(x, y, z);
            return std::make_tuple(echo.busy_cycles, echo.fill_drain_cycles,
                                   echo.memory_stall_cycles);
          },
          "x"_a, "y"_a, "z"_a, Unlocked())
      .def("flush", &Session::flush, Unlocked())
      .def("reset", &Session::reset, "device"_a = 0, Unlocked())
      .def("info", &info_dict, "device"_a = 0)
      .def("submit_raw", &submit_raw, "command"_a)
      .def("wait_raw", &wait_raw, "id"_a, "timeout_s"_a = 0.0)
      .def("stats", &stats_dict)
      .def("set_profiling", &Session::set_profiling, "on"_a)
      .def("take_records", &Session::take_records)
      .def("close", &Session::close, Unlocked())
      .def_property_readonly("closed", &Session::closed)
      .def_property_readonly("engine_pid", &Session::engine_pid)
      .def_property_readonly("engine_pids", &Session::engine_pids)
      .def_property_readonly("region_fd", &Session::region_fd)
      .def_property_readonly("generation", &Session::generation)
      .def_property_readonly("devices", &Session::devices)
      .def_property_readonly("parameters", &Session::parameters);

  module.def("set_current_session", &set_current_session, "session"_a.none(true), Unlocked());
  module.def("current_session", &current_session, Unlocked());
  module.def("current_session_or_none", &current_session_or_null);
  module.def("set_session_opener", [](py::function opener) {
    // Never destroyed: it may be asked for while the interpreter ends.
    auto* held = new py::function(std::move(opener));
    set_session_opener([held] {
      const GilAcquire gil;
      return (*held)().cast<SessionPtr>();
    });
  });
  module.def("set_program_ending", &set_program_ending);
  module.def("set_scope", &set_scope, "scope"_a);
  module.def("scope", &scope);
  set_interrupt_check(&python_wants_to_stop);
}

}  // namespace shmgemm
