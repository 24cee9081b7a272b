// The socket at which an engine takes links, and those that are there. The constructor is called by
// whoever starts the engine, all else by the control thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "engine/host_port.h"
#include "engine/link.h"

namespace shmgemm::engine {

class Links {
 public:
  static constexpr std::size_t kMost = 32;

  // std::runtime_error where the path is too long, taken by a live engine or by something else.
  Links(const std::string& path, HostPort& port, std::function<void(const std::string&)> log);
  ~Links();
  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;

  void watch(int epoll);  // from now on, with the descriptors as data
  void on_event(int fd, std::uint32_t events);
  void serve();      // after each round of events
  bool may_sleep();  // false: answers are there; look again at once
  void wakes_up() { host_.control->wakes_up(); }
  void remove_path();  // of the socket, where it is still ours

 private:
  struct Watched {
    std::unique_ptr<Link> link;
    std::uint32_t interest;
  };

  void accept();
  void update_interest(int fd, Watched& watched);

  const std::string path_;
  LinkHost host_;
  int listener_;
  int epoll_ = -1;
  dev_t device_ = 0;  // of the path, to know it again
  ino_t inode_ = 0;
  std::unordered_map<int, Watched> links_;  // by socket
};

}  // namespace shmgemm::engine
