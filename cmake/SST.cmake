# SHMGEMM_SST_FOUND, and target `sst_core`: what an SST element is compiled with, as `sst-config` on PATH
# says. An element is loaded by SST, so it links nothing of it.
set(SHMGEMM_SST_FOUND FALSE)
if(SHMGEMM_SST STREQUAL "OFF")
  return()
endif()
find_program(SST_CONFIG sst-config PATHS ENV PATH NO_DEFAULT_PATH NO_CACHE)
if(NOT SST_CONFIG)
  if(NOT SHMGEMM_SST STREQUAL "AUTO")
    message(FATAL_ERROR "SHMGEMM_SST=${SHMGEMM_SST}, but there is no sst-config on PATH: install SST "
                        "(sst-simulator.org) and put its bin/ on PATH.")
  endif()
  message(STATUS "no sst-config on PATH: the SST element is left out")
  return()
endif()

function(ask_sst program option result)
  execute_process(COMMAND ${program} ${option} OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE
                  RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${program} ${option} failed: ${failed}")
  endif()
  set(${result} "${answer}" PARENT_SCOPE)
endfunction()

ask_sst(${SST_CONFIG} --ELEMENT_CXXFLAGS sst_flags)
ask_sst(${SST_CONFIG} --prefix sst_prefix)
ask_sst(${sst_prefix}/bin/sst --version sst_version)
string(REGEX MATCH "[0-9]+(\\.[0-9]+)*" SHMGEMM_SST_VERSION "${sst_version}")
separate_arguments(sst_flags UNIX_COMMAND "${sst_flags}")
# The standard is ours to choose; SST's headers are not ours to warn about.
list(FILTER sst_flags EXCLUDE REGEX "^-std=")
list(TRANSFORM sst_flags REPLACE "^-I" "-isystem")
add_library(sst_core INTERFACE)
target_compile_options(sst_core INTERFACE ${sst_flags})
set(SHMGEMM_SST_FOUND TRUE)
message(STATUS "SST ${SHMGEMM_SST_VERSION} by ${SST_CONFIG}")
