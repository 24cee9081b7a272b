// What module.cpp puts together: one function for each area of the compiled core.
#pragma once

#include <pybind11/pybind11.h>

namespace shmgemm {

void register_model(pybind11::module_& module);
void register_errors(pybind11::module_& module);
void register_block(pybind11::module_& module);
void register_calls(pybind11::module_& module);
void register_session(pybind11::module_& module);

}  // namespace shmgemm
