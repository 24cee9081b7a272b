// The engine's control thread: beats every 100 ms, also during a long GEMM, carries what links send
// and are sent, and ends the engine when its session says so, hangs up or dies, or on a signal.
#pragma once

#include <sys/epoll.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "engine/links.h"
#include "region/region.h"

namespace shmgemm::engine {

struct ControlOptions {
  int socket = -1;               // to the session; -1: there is none
  int parent_pid = 0;            // 0: nobody to outlive
  int stop = -1;                 // readable: it is time to end
  std::unique_ptr<Links> links;  // may be null
};

class Control {
 public:
  // `stop` is called from the control thread, once.
  Control(ControlOptions options, shmgemm_peer* self, std::function<void()> stop);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // To the session; text is cut to what the record holds.
  static void send(int socket, shmgemm_control_kind kind, const std::string& text);

 private:
  void run();
  bool round(int count, const epoll_event* events);
  bool told_to_stop() const;

  const ControlOptions options_;
  int parent_ = -1;  // pidfd
  int quit_ = -1;    // eventfd: the engine ends by itself
  int epoll_ = -1;
  shmgemm_peer* self_;
  std::function<void()> stop_;
  std::thread thread_;
};

}  // namespace shmgemm::engine
