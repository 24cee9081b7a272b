// One of a session's ways to devices: an engine process of its own, or a device server, with the
// channel to it, the monitor that watches it and its view of the region. A session has one for each
// process; what happens to one does not touch the others.
//
// Of P lanes the one with number l serves the devices l, l + P, l + 2 P ..., which are its engine's
// 0, 1, 2 ...
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "client/attach.h"
#include "client/channel.h"
#include "client/engine_process.h"
#include "client/heap.h"
#include "client/ledger.h"
#include "client/monitor.h"
#include "client/server_port.h"
#include "client/session.h"

namespace shmgemm::client {

class Lane {
 public:
  // `options`: of the session; `ledger` is told of each start; `attachment`, to a session of
  // another process, may be null and outlives the lane.
  Lane(const SessionOptions& options, std::shared_ptr<Heap> heap, Ledger& ledger,
       std::uint32_t number, Attachment* attachment = nullptr);
  ~Lane() { end(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // A fresh generation: an engine where the session has its own, then the way to it. launch() goes
  // before it where several engines shall start at once: it does not wait.
  void launch();
  void start();
  // Starts again after a failure, unless `closed`.
  void revive(const std::atomic<bool>& closed);
  void ask_to_end();           // so that several end at once
  void end();                  // the channel has failed then
  void await_verdict() const;  // why there is no device any more is for the monitor to find out

  Channel& channel() { return channel_; }
  const Channel& channel() const { return channel_; }
  std::uint32_t generation() const { return region_.generation(); }
  std::uint8_t device_here(std::uint8_t device) const;  // of the session's: as the engine has it
  int engine_pid() const;                               // 0 where none runs

 private:
  void launch_locked();
  void start_locked();
  void connect();
  void connect_attached();
  std::unique_ptr<ServerPort> connect_server();
  void await_device(Channel::Deadline deadline);

  const SessionOptions options_;  // of this engine
  const std::uint32_t lanes_;
  const std::string name_;  // of the engine, for errors
  const std::shared_ptr<Heap> heap_;
  Attachment* const attachment_;
  bool attached_ = false;  // has been
  region::Region& region_;
  Ledger& ledger_;
  Channel channel_;
  mutable std::mutex lifecycle_;  // of the engine and its monitor
  bool launched_ = false;
  std::unique_ptr<EngineProcess> engine_;
  std::unique_ptr<Monitor> monitor_;
};

}  // namespace shmgemm::client
