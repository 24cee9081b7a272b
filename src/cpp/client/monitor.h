// The session's control thread, one for each generation of its channel: beats for the client,
// watches the engine's pidfd and heartbeat and the connection to a device server, and tells the
// channel when one of them is gone. It is the only place that decides so.
#pragma once

#include <string>
#include <thread>

#include "client/attach.h"
#include "client/channel.h"
#include "client/engine_process.h"
#include "client/tcp.h"

namespace shmgemm::client {

struct Watched {
  EngineProcess* engine = nullptr;      // null: not ours
  TcpConnection* connection = nullptr;  // null: the channel goes direct
  std::string name = "the engine";      // for errors
  Attachment* attachment = nullptr;     // to a session of another process; null: the region is ours
};

class Monitor {
 public:
  Monitor(Watched watched, Channel& channel, region::Region& region, double timeout_s);
  // Ends the engine where it still runs (asked first, killed after 0.5 s); then the channel has
  // failed.
  ~Monitor();
  void stop();  // begins that end, and does not wait
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

 private:
  void run();
  void watch();
  std::string gone_text() const;
  bool beats();
  void fail_silent();
  void end_session();

  const Watched watched_;
  Channel& channel_;
  region::Region& region_;
  unsigned patience_beats_;
  unsigned silent_beats_ = 0;
  std::uint64_t last_heartbeat_ = 0;
  int quit_;
  std::thread thread_;
};

}  // namespace shmgemm::client
