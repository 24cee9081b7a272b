// shmgemm._core: the torch-free compiled core. See _core.pyi for what it offers.
#include "abi/shmgemm_abi.h"
#include "python/bind.h"

PYBIND11_MODULE(_core, module) {
  module.attr("ABI_VERSION") = pybind11::make_tuple(SHMGEMM_ABI_MAJOR, SHMGEMM_ABI_MINOR);
  shmgemm::register_errors(module);
  shmgemm::register_model(module);
  shmgemm::register_block(module);
  shmgemm::register_calls(module);
  shmgemm::register_session(module);
}
