// What stands in this process: the GemmDevices of the simulation and the one HostPort that serves
// them. Components enter themselves when SST constructs them and look when it sets them up.
#pragma once

#include <map>
#include <mutex>
#include <string>

namespace shmgemm::sst_element {

class GemmDevice;
class HostPort;

struct House {
  static House& ours();

  std::mutex mutex;  // SST constructs on several threads
  HostPort* host = nullptr;
  int control_fd = -1;  // of the host's session, once it is known
  std::map<unsigned, GemmDevice*> devices;
};

// Ends the simulation: says `why` on the standard error and, where there is one, to the session.
[[noreturn]] void fail(const std::string& component, const std::string& why);

}  // namespace shmgemm::sst_element
