// The engine a session starts: spawned with the region's descriptor and one end of a control
// socket, watched by its pidfd, never left behind.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "client/session.h"
#include "region/region.h"

namespace shmgemm::client {

class EngineProcess {
 public:
  // Starts it, for the part of the region that is its own. Unsupported where it cannot be.
  EngineProcess(const SessionOptions& options, const region::Region& region);
  ~EngineProcess();  // kills it where it still runs, and reaps it
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  // Returns when the engine serves. Unsupported (it says why it cannot), ProtocolError (speaks
  // another ABI or nonsense), DeviceLost (died at once), DeviceTimeout (never became ready) - with
  // its own words if any; it is gone then.
  void await_ready();

  int pid() const { return pid_; }
  int pidfd() const { return pidfd_; }
  void ask_to_stop();
  void kill();
  bool wait_dead(std::chrono::milliseconds limit);  // true: it is gone, and reaped
  std::string cause_of_death() const;               // after wait_dead()

 private:
  void spawn(const SessionOptions& options, const region::Region& region, int their_socket);
  void receive_ready();
  void check_ready(const shmgemm_control& record, long bytes);
  void close_descriptors();

  std::string path_;
  int pid_ = 0;
  int pidfd_ = -1;
  int socket_ = -1;
  bool dead_ = false;
  std::string cause_;
};

}  // namespace shmgemm::client
