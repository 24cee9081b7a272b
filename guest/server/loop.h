// One thread waits for everything: an epoll with a handler for each descriptor. A handler may be
// removed at any time; it is destroyed after a round, when no event can name it any more.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace shmgemm::server {

class Handler {
 public:
  virtual ~Handler() = default;
  virtual void on_events(std::uint32_t events) = 0;
};

class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void add(int fd, std::uint32_t events, Handler* handler);
  void change(int fd, std::uint32_t events, Handler* handler);
  void remove(int fd, Handler* handler);  // no event of this round reaches the handler any more

  // Calls handlers, then `after_round`, until stop(); wakes every `tick_ms` at least.
  void run(int tick_ms, const std::function<void()>& after_round);
  void stop() { stopped_ = true; }

 private:
  int epoll_;
  bool stopped_ = false;
  std::vector<Handler*> round_;
};

}  // namespace shmgemm::server
