#include "engine/control.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace shmgemm::engine {
namespace {

constexpr int kBeatMs = 100;
constexpr int kEvents = 16;  // taken at once

void watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLHUP | EPOLLRDHUP;
  event.data.fd = fd;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

Control::Control(ControlOptions options, shmgemm_peer* self, std::function<void()> stop)
    : options_(std::move(options)),
      quit_(eventfd(0, EFD_CLOEXEC)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      self_(self),
      stop_(std::move(stop)) {
  if (options_.parent_pid > 0) {
    parent_ = static_cast<int>(syscall(SYS_pidfd_open, options_.parent_pid, 0));
    // Already gone, or not our parent any more: the hang-up of the socket says the same.
    if (parent_ >= 0) watch(epoll_, parent_);
  }
  watch(epoll_, quit_);
  if (options_.socket >= 0) watch(epoll_, options_.socket);
  if (options_.stop >= 0) watch(epoll_, options_.stop);
  if (options_.links) options_.links->watch(epoll_);
  thread_ = std::thread([this] { run(); });
}

Control::~Control() {
  const std::uint64_t one = 1;
  if (write(quit_, &one, sizeof one) == sizeof one) thread_.join();
  close(epoll_);
  close(quit_);
  if (parent_ >= 0) close(parent_);
}

void Control::send(int socket, shmgemm_control_kind kind, const std::string& text) {
  shmgemm_control record{};
  record.kind = kind;
  record.abi_major = SHMGEMM_ABI_MAJOR;
  record.abi_minor = SHMGEMM_ABI_MINOR;
  record.pid = static_cast<std::uint32_t>(getpid());
  record.text_bytes = static_cast<std::uint32_t>(std::min(text.size(), sizeof record.text));
  std::memcpy(record.text, text.data(), record.text_bytes);
  (void)!::send(socket, &record, sizeof record, MSG_NOSIGNAL);
}

void Control::run() {
  Links* const links = options_.links.get();
  for (;;) {
    __atomic_fetch_add(&self_->heartbeat, 1, __ATOMIC_RELAXED);
    epoll_event events[kEvents];
    const bool sleeps = links == nullptr || links->may_sleep();
    const int count = epoll_wait(epoll_, events, kEvents, sleeps ? kBeatMs : 0);
    if (links != nullptr) links->wakes_up();
    if (!round(count, events)) return;
    if (links != nullptr) links->serve();
  }
}

// False: the thread ends.
bool Control::round(int count, const epoll_event* events) {
  for (int i = 0; i < count; ++i) {
    const int fd = events[i].data.fd;
    if (fd == quit_) return false;
    const bool ends = fd == parent_ || fd == options_.stop;
    if (ends || (fd == options_.socket && told_to_stop())) {
      if (options_.links) options_.links->remove_path();  // also where this process is cut short
      stop_();
      return false;
    }
    if (options_.links) options_.links->on_event(fd, events[i].events);
  }
  return true;
}

// A shutdown record or a hang-up; anything else on the socket is ignored.
bool Control::told_to_stop() const {
  shmgemm_control record{};
  const ssize_t bytes = recv(options_.socket, &record, sizeof record, MSG_DONTWAIT);
  return bytes == 0 || (bytes == sizeof record && record.kind == SHMGEMM_CONTROL_SHUTDOWN);
}

}  // namespace shmgemm::engine
