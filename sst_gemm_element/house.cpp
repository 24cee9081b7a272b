#include "house.h"

#include <cstdio>
#include <cstdlib>

#include "engine/control.h"

namespace SST {
void SST_Exit(int exit_code);  // of SST's core: ends all ranks
}

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
  std::fprintf(stderr, "shmgemm: %s: %s\n", component.c_str(), why.c_str());
  SST::SST_Exit(1);
  std::abort();  // it does not return
}

}  // namespace shmgemm::sst_element
