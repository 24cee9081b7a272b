// The engine's control thread: beats every 100 ms, also during a long GEMM, and ends the engine
// when its session says so, hangs up or dies.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "region/region.h"

namespace shmgemm::engine {

class Control {
 public:
  // `stop` is called from the control thread, once. `parent_pid` 0: nobody to outlive.
  Control(int socket, int parent_pid, shmgemm_peer* self, std::function<void()> stop);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // To the session; text is cut to what the record holds.
  static void send(int socket, shmgemm_control_kind kind, const std::string& text);

 private:
  void run();
  bool told_to_stop() const;

  int socket_;
  int parent_ = -1;  // pidfd
  int quit_ = -1;    // eventfd: the engine ends by itself
  int epoll_ = -1;
  shmgemm_peer* self_;
  std::function<void()> stop_;
  std::thread thread_;
};

}  // namespace shmgemm::engine
