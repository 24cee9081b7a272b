# Target `openblas`: the library of the PyPI wheel scipy-openblas32 (its symbols start with scipy_).
# The same wheel is a runtime dependency, so an installed engine finds it beside itself in site-packages.
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter)

execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import scipy_openblas32 as s; print(s.get_include_dir(), s.get_lib_dir(), s.get_library(), sep=';')"
  OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${Python_EXECUTABLE} cannot import scipy_openblas32: pip install scipy-openblas32")
endif()
list(GET found 0 openblas_include)
list(GET found 1 openblas_folder)
list(GET found 2 openblas_name)

add_library(openblas SHARED IMPORTED)
set_target_properties(openblas PROPERTIES
  IMPORTED_LOCATION ${openblas_folder}/lib${openblas_name}.so
  INTERFACE_INCLUDE_DIRECTORIES ${openblas_include})
