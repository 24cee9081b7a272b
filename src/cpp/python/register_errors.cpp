// The errors of client and models become the exceptions of shmgemm/errors.py; an interrupt leaves
// the exception that Python's own signal handler raised.
#include "model/supervision.h"
#include "python/bind.h"
#include "region/error.h"

namespace py = pybind11;

namespace shmgemm {
namespace {

void raise(const char* class_name, const char* message) {
  const py::object type = py::module_::import("shmgemm.errors").attr(class_name);
  py::set_error(type, message);
}

void translate(std::exception_ptr pending) {
  try {
    std::rethrow_exception(pending);
  } catch (const Interrupted&) {
    if (PyErr_Occurred() == nullptr) PyErr_SetNone(PyExc_KeyboardInterrupt);
  } catch (const Cancelled& error) {
    const py::object type = py::module_::import("concurrent.futures").attr("CancelledError");
    py::set_error(type, error.what());
  } catch (const DeviceLost& error) {
    raise("DeviceLost", error.what());
  } catch (const DeviceTimeout& error) {
    raise("DeviceTimeout", error.what());
  } catch (const ProtocolError& error) {
    raise("ProtocolError", error.what());
  } catch (const RegionFull& error) {
    raise("RegionFull", error.what());
  } catch (const Unsupported& error) {
    raise("Unsupported", error.what());
  } catch (const Closed& error) {
    raise("SessionClosed", error.what());
  } catch (const Error& error) {
    raise("ShmgemmError", error.what());
  } catch (const model::ModelError& error) {
    raise("ShmgemmError", error.what());
  }
}

}  // namespace

void register_errors(py::module_&) { py::register_exception_translator(&translate); }

}  // namespace shmgemm
