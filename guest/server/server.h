// The device server: the listening socket, its clients, signals, and what STATUS answers.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "accelerator.h"
#include "connection.h"
#include "loop.h"
#include "options.h"
#include "worker.h"

namespace shmgemm::server {

class Server : public Handler {
 public:
  // std::runtime_error where it cannot listen.
  explicit Server(const Options& options);
  ~Server() override;

  // Waits up to `limit_ms` for a first word on whether a device answers, says so and what port it
  // listens on, and serves until a signal ends it. `on_tick` is called now and then.
  void run(int limit_ms, const std::function<void()>& on_tick);

  void on_events(std::uint32_t events) override;  // of the listening socket

 private:
  class Signals;
  void listen_on(const std::string& address, std::uint16_t port);
  void announce();
  void after_round();
  void status_json(std::function<void(std::string)> told);
  std::string status_text(const shmgemm_info* info);

  Options options_;
  Counters counters_;
  Budget budget_;
  Loop loop_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Signals> signals_;
  Worker worker_;
  Accelerator accelerator_;
  Services services_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::list<std::shared_ptr<Connection>> connections_;
  std::function<void()> on_tick_;
  std::int64_t next_tick_ns_ = 0;
  std::int64_t announce_by_ns_ = 0;
  bool announced_ = false;
};

}  // namespace shmgemm::server
