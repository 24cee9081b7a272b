// A device server that does what a test says: it takes connections on a loopback port, one thread
// for each, and hands them to the test's function.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "client/tcp.h"

class FakeServer {
 public:
  using Serve = std::function<void(int fd, int number)>;  // number: of the connection, from 0

  explicit FakeServer(Serve serve) : serve_(std::move(serve)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), bytes), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &bytes), 0);
    port_ = ntohs(address.sin_port);
    accepter_ = std::thread([this] { accept_all(); });
  }
  ~FakeServer() {
    shutdown(listener_, SHUT_RDWR);
    accepter_.join();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const int fd : fds_) shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : fds_) close(fd);
    close(listener_);
  }

  shmgemm::client::ServerAddress address() const { return {"127.0.0.1", port_}; }
  int accepted() const { return accepted_.load(); }

  // All of it, or false where the other side has hung up.
  static bool read_all(int fd, void* data, std::size_t bytes) {
    return recv(fd, data, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes);
  }
  // To nobody where the other side has hung up, as it may at a test's end.
  static void write_all(int fd, const void* data, std::size_t bytes) {
    (void)!::send(fd, data, bytes, MSG_NOSIGNAL);
  }
  static std::uint32_t read_size(int fd) {
    char size[4] = {};
    return read_all(fd, size, sizeof size) ? shmgemm::client::read_big_endian(size) : 0;
  }

 private:
  void accept_all() {
    for (;;) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      const std::lock_guard<std::mutex> lock(mutex_);
      fds_.push_back(fd);
      threads_.emplace_back([this, fd, number = accepted_++] {
        serve_(fd, number);
        shutdown(fd, SHUT_RDWR);
      });
    }
  }

  Serve serve_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<int> accepted_{0};
  std::mutex mutex_;
  std::vector<int> fds_;
  std::vector<std::thread> threads_;
  std::thread accepter_;
};
