#include "loop.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace shmgemm::server {
namespace {

constexpr int kEventsPerRound = 64;

void control(int epoll, int what, int fd, std::uint32_t events, Handler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  if (epoll_ctl(epoll, what, fd, &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
}

}  // namespace

Loop::Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  if (epoll_ < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
}

Loop::~Loop() { close(epoll_); }

void Loop::add(int fd, std::uint32_t events, Handler* handler) {
  control(epoll_, EPOLL_CTL_ADD, fd, events, handler);
}

void Loop::change(int fd, std::uint32_t events, Handler* handler) {
  control(epoll_, EPOLL_CTL_MOD, fd, events, handler);
}

void Loop::remove(int fd, Handler* handler) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  std::replace(round_.begin(), round_.end(), handler, static_cast<Handler*>(nullptr));
}

void Loop::run(int tick_ms, const std::function<void()>& after_round) {
  epoll_event events[kEventsPerRound];
  while (!stopped_) {
    const int count = epoll_wait(epoll_, events, kEventsPerRound, tick_ms);
    round_.clear();
    for (int i = 0; i < count; ++i) round_.push_back(static_cast<Handler*>(events[i].data.ptr));
    for (std::size_t i = 0; i < round_.size() && !stopped_; ++i) {
      if (round_[i] != nullptr) round_[i]->on_events(events[i].events);
    }
    round_.clear();
    after_round();
  }
}

}  // namespace shmgemm::server
