// What a plug-in is compiled against: the version of the model interface, which is checked when the
// plug-in is loaded, and the mark of what is one and the same in all shared objects.
#pragma once

#include <cstdint>

// Thrown, caught or called across shared objects, also where they hide their symbols by default.
#define SHMGEMM_MODEL_API __attribute__((visibility("default")))

namespace shmgemm::model {

// Raised by every change to a type or virtual function that a model sees: timing_model.h,
// scheduler.h, memory.h, registry.h.
inline constexpr std::uint32_t kInterfaceVersion = 2;

}  // namespace shmgemm::model
