// The session's control thread, one for each engine: beats for the client, watches the engine's
// pidfd and heartbeat, and tells the channel when the engine is gone. It is the only place that
// decides so.
#pragma once

#include <string>
#include <thread>

#include "client/channel.h"
#include "client/engine_process.h"

namespace shmgemm::client {

class Monitor {
 public:
  Monitor(EngineProcess& engine, Channel& channel, region::Region& region, double timeout_s);
  // Ends the engine where it still runs (asked first, killed after 0.5 s); then the channel has
  // failed.
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

 private:
  void run();
  bool beats();
  void end_session();

  EngineProcess& engine_;
  Channel& channel_;
  region::Region& region_;
  unsigned patience_beats_;
  unsigned silent_beats_ = 0;
  std::uint64_t last_heartbeat_ = 0;
  int quit_;
  std::thread thread_;
};

}  // namespace shmgemm::client
