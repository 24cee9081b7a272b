#include "house.h"

#include <sst/core/output.h>
#include <unistd.h>

#include <cstdlib>

#include "engine/control.h"

namespace shmgemm::sst_element {

House& House::ours() {
  static House house;
  return house;
}

void fail(const std::string& component, const std::string& why) {
  const int control_fd = House::ours().control_fd;
  if (control_fd >= 0) {
    engine::Control::send(control_fd, SHMGEMM_CONTROL_FAILED, component + ": " + why);
  }
  SST::Output output("", 0, 0, SST::Output::STDERR);
  output.fatal(CALL_INFO, 1, "%s: %s\n", component.c_str(), why.c_str());
  std::abort();  // fatal() does not return
}

}  // namespace shmgemm::sst_element
