// What SST 15.1 and later ones spell differently.
#pragma once

#include <sst/core/event.h>
#include <sst/core/interfaces/stdMem.h>
#include <sst/core/timeConverter.h>

namespace shmgemm::sst_element {

#if SHMGEMM_SST_MAJOR != 15
template <typename Class, auto function>
using EventHandler = SST::Event::Handler<Class, function>;
template <typename Class, auto function>
using MemoryHandler = SST::Interfaces::StandardMem::Handler<Class, function>;
#else
template <typename Class, auto function>
using EventHandler = SST::Event::Handler2<Class, function>;
template <typename Class, auto function>
using MemoryHandler = SST::Interfaces::StandardMem::Handler2<Class, function>;
#endif

inline SST::TimeConverter time_converter(const SST::TimeConverter& converter) { return converter; }
inline SST::TimeConverter time_converter(SST::TimeConverter* converter) { return *converter; }

}  // namespace shmgemm::sst_element
