// What `sst-info shmgemm` says of a device's parameters: made from the tables that the models
// register, which are also what `shmgemm info` prints and what values are checked against.
#pragma once

#include <sst/core/eli/elementinfo.h>

#include <vector>

namespace shmgemm::sst_element {

// The device's own, then those of the models; of a name that several models have, what they share
// comes once and every default that differs is given.
const std::vector<SST::ElementInfoParam>& device_parameter_documentation();

}  // namespace shmgemm::sst_element
