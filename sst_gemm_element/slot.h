// A component's slots, which a user's configuration fills.
#pragma once

#include <sst/core/component.h>

#include <string>

#include "house.h"

namespace shmgemm::sst_element {

// Whether it is filled; ends the simulation where what is in it cannot be loaded as an `api`.
inline bool slot_is_filled(SST::Component& component, const std::string& slot, bool is_loadable,
                           const char* api) {
  if (is_loadable) return true;
  if (component.getSubComponentSlotInfo(slot) == nullptr) return false;
  fail(component.getName(), "what is in its slot \"" + slot + "\" is no " + api +
                                ", or its element library is not found (SST_LIB_PATH)");
}

}  // namespace shmgemm::sst_element
