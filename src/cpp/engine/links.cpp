#include "engine/links.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace shmgemm::engine {
namespace {

std::runtime_error error(const std::string& path, const std::string& what) {
  return std::runtime_error("link socket " + path + ": " + what);
}

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    throw error(path, "a path of 1 to " + std::to_string(sizeof address.sun_path - 1) +
                          " bytes expected, " + std::to_string(path.size()) + " given");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int socket_or_throw(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw error(path, std::strerror(errno));
  return fd;
}

// Of an engine of ours that was killed: a socket of this user that nobody listens at.
void remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status{};
  if (lstat(path.c_str(), &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) throw error(path, "the file is there and is no socket");
  if (status.st_uid != geteuid()) {
    throw error(path, "belongs to user " + std::to_string(status.st_uid));
  }
  const int probe = socket_or_throw(path);
  const int result = connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int why = errno;
  close(probe);
  if (result == 0 || why != ECONNREFUSED) {
    throw error(path, "in use by another engine; end that one or name another path");
  }
  unlink(path.c_str());
}

// Nobody can connect before listen(), and then the mode is right.
int listen_at(const std::string& path) {
  const sockaddr_un address = address_of(path);
  remove_stale(path, address);
  const int fd = socket_or_throw(path);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      chmod(path.c_str(), 0600) != 0 || listen(fd, static_cast<int>(Links::kMost)) != 0) {
    const std::string why = std::strerror(errno);
    close(fd);
    throw error(path, why);
  }
  return fd;
}

std::string lines_of(const model::ParameterMap& parameters) {
  std::string text;
  for (const auto& [key, value] : parameters) text += key + "=" + value + "\n";
  return text;
}

}  // namespace

Links::Links(const std::string& path, HostPort& port, std::function<void(const std::string&)> log)
    : path_(path),
      host_{
          port.hello(),
          port.link_counters(),
          std::make_shared<Bell>(),
          [&port](std::shared_ptr<Connection> connection) { port.connect(std::move(connection)); },
          [&port] { port.ring(); },
          std::move(log),
          nullptr,
          lines_of(port.parameters())},
      listener_(listen_at(path)) {
  host_.places =
      std::make_shared<ClientPlaces>(port.region(), [bell = host_.control] { bell->ring(); });
  struct stat status{};
  if (lstat(path_.c_str(), &status) == 0) {
    device_ = status.st_dev;
    inode_ = status.st_ino;
  }
}

Links::~Links() {
  remove_path();
  close(listener_);
}

void Links::remove_path() {
  struct stat status{};
  if (lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) {
    unlink(path_.c_str());
  }
}

void Links::watch(int epoll) {
  epoll_ = epoll;
  for (const int fd : {listener_, host_.control->fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
}

void Links::on_event(int fd, std::uint32_t events) {
  if (fd == listener_) return accept();
  if (fd == host_.control->fd()) return host_.control->heard();
  const auto found = links_.find(fd);
  if (found != links_.end()) found->second.link->on_events(events);
}

void Links::accept() {
  const int socket = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (socket < 0) return;
  const bool welcome = links_.size() < kMost;
  Watched watched{std::make_unique<Link>(socket, host_), EPOLLIN};
  if (!welcome) {
    watched.link->refuse("one link too many: an engine serves " + std::to_string(kMost));
    return;
  }
  epoll_event event{};
  event.events = watched.interest;
  event.data.fd = socket;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event);
  links_.emplace(socket, std::move(watched));
}

void Links::serve() {
  for (auto entry = links_.begin(); entry != links_.end();) {
    entry->second.link->serve();
    if (entry->second.link->over()) {
      entry = links_.erase(entry);  // its socket leaves epoll by being closed
    } else {
      update_interest(entry->first, entry->second);
      ++entry;
    }
  }
}

void Links::update_interest(int fd, Watched& watched) {
  const std::uint32_t interest = watched.link->interest();
  if (interest == watched.interest) return;
  watched.interest = interest;
  epoll_event event{};
  event.events = interest;
  event.data.fd = fd;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

bool Links::may_sleep() {
  host_.control->falls_asleep();
  for (const auto& [fd, watched] : links_) {
    if (watched.link->has_answers()) {
      host_.control->wakes_up();
      return false;
    }
  }
  return true;
}

}  // namespace shmgemm::engine
