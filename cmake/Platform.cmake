# Says in one sentence why this machine cannot work, before anything is compiled.
include(CheckSymbolExists)

if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  message(FATAL_ERROR "shmgemm needs Linux (memfd_create, futex, pidfd); this is ${CMAKE_SYSTEM_NAME}.")
endif()
if(NOT CMAKE_SIZEOF_VOID_P EQUAL 8 OR NOT CMAKE_CXX_BYTE_ORDER STREQUAL "LITTLE_ENDIAN")
  message(FATAL_ERROR "shmgemm needs a 64-bit little-endian machine; this is ${CMAKE_SYSTEM_PROCESSOR}.")
endif()

set(CMAKE_REQUIRED_DEFINITIONS -D_GNU_SOURCE)
check_symbol_exists(memfd_create sys/mman.h SHMGEMM_HAVE_MEMFD)
unset(CMAKE_REQUIRED_DEFINITIONS)
if(NOT SHMGEMM_HAVE_MEMFD)
  message(FATAL_ERROR "shmgemm needs memfd_create in <sys/mman.h> (glibc 2.27 or later).")
endif()
