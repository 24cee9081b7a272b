// What wakes the control thread from another one: an eventfd, written only while the thread sleeps
// or is about to. As with the waiter, at least one side sees the other: whoever rings has published
// before, and whoever goes to sleep looks once more after falls_asleep().
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace shmgemm::engine {

class Bell {
 public:
  Bell() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~Bell() { close(fd_); }
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  int fd() const { return fd_; }
  void ring() {
    if (!asleep_.load() || !asleep_.exchange(false)) return;
    const std::uint64_t one = 1;
    (void)!write(fd_, &one, sizeof one);
  }
  void falls_asleep() { asleep_.store(true); }
  void wakes_up() { asleep_.store(false); }
  void heard() {
    std::uint64_t rings;
    (void)!read(fd_, &rings, sizeof rings);
  }

 private:
  int fd_;
  std::atomic<bool> asleep_{false};
};

}  // namespace shmgemm::engine
