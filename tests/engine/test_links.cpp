// The links of one engine within this process: the control thread's sockets, the rings between it
// and the main loop, and what becomes of links that go. The sanitizers look at this one.
#include "engine/links.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>

#include "engine/control.h"
#include "host.h"

namespace {

using namespace shmgemm;
using test::Host;

// A folder of its own for the socket.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/shmgemm-links-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Folder() { rmdir(path_.c_str()); }
  std::string socket() const { return path_ + "/link"; }

 private:
  std::string path_;
};

// An engine that serves in threads of this process.
class Served {
 public:
  Served() : host_(2) {
    engine::ControlOptions options;
    options.links =
        std::make_unique<engine::Links>(folder_.socket(), *host_.port, [](const std::string&) {});
    control_ = std::make_unique<engine::Control>(std::move(options), host_.region->engine(), [] {});
    loop_ = std::thread([this] {
      engine::HostPort& port = *host_.port;
      while (!port.stopped()) {
        if (!port.poll()) port.wait(std::chrono::seconds(1));
        while (port.flushing() && !port.stopped()) port.run_next();
      }
    });
  }
  ~Served() {
    host_.port->stop();
    loop_.join();
    control_.reset();
  }

  std::string path() const { return folder_.socket(); }
  const Host& host() const { return host_; }
  engine::HostPort& port() { return *host_.port; }

 private:
  Folder folder_;
  Host host_;
  std::unique_ptr<engine::Control> control_;
  std::thread loop_;
};

class Client {
 public:
  explicit Client(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    shmgemm_link_hello hello{};
    hello.magic = SHMGEMM_LINK_MAGIC;
    hello.abi_major = SHMGEMM_ABI_MAJOR;
    hello.role = SHMGEMM_LINK_SERVER;
    send(SHMGEMM_LINK_HELLO, &hello, sizeof hello);
    shmgemm_link_head head{};
    take(&head, sizeof head);
    EXPECT_EQ(head.kind, SHMGEMM_LINK_HELLO);
    take(&engine, sizeof engine);
  }
  ~Client() { close(fd_); }

  void send(std::uint32_t kind, const void* content, std::size_t bytes) {
    const shmgemm_link_head head{kind, static_cast<std::uint32_t>(bytes)};
    EXPECT_EQ(::send(fd_, &head, sizeof head, MSG_NOSIGNAL), ssize_t{sizeof head});
    EXPECT_EQ(::send(fd_, content, bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  }
  void submit(const std::vector<shmgemm_command>& commands) {
    send(SHMGEMM_LINK_COMMANDS, commands.data(), commands.size() * sizeof commands[0]);
  }
  // False where nothing comes for 30 s or the engine has hung up.
  bool take(void* to, std::size_t bytes) {
    auto* at = static_cast<char*>(to);
    while (bytes > 0) {
      pollfd watched{fd_, POLLIN, 0};
      const ssize_t got = poll(&watched, 1, 30000) == 1 ? recv(fd_, at, bytes, 0) : 0;
      if (got <= 0) return false;
      at += got;
      bytes -= static_cast<std::size_t>(got);
    }
    return true;
  }
  // One frame of answers; false as take().
  bool collect() {
    shmgemm_link_head head{};
    if (!take(&head, sizeof head)) return false;
    if (head.kind == SHMGEMM_LINK_RESPONSE) {
      virtio_sst_response response;
      if (!take(&response, sizeof response)) return false;
      responses[response.id] = response;
      return true;
    }
    for (std::size_t i = 0; i < head.bytes / sizeof(shmgemm_completion); ++i) {
      shmgemm_completion completion;
      if (!take(&completion, sizeof completion)) return false;
      completions[completion.id] = completion;
    }
    return head.kind == SHMGEMM_LINK_COMPLETIONS;
  }
  void wait(std::uint64_t id) {
    while (completions.count(id) == 0) ASSERT_TRUE(collect());
  }

  shmgemm_link_hello engine{};
  std::map<std::uint64_t, shmgemm_completion> completions;
  std::map<std::uint64_t, virtio_sst_response> responses;

 private:
  int fd_;
};

TEST(Links, ThreeAtOnceWithQueuePairBesides) {
  Served served;
  const auto work = [&served](std::uint32_t device) {
    Client client(served.path());
    for (std::uint64_t id = 1; id <= 300; ++id) {
      auto product = served.host().product(id, 5);
      product.device = static_cast<std::uint8_t>(device);
      if (id % 7 == 0) product.flags |= SHMGEMM_FLAG_FLUSH;
      client.submit({product});
      if (id % 50 == 0) client.wait(id - id % 7);
    }
    client.submit({served.host().command(SHMGEMM_OP_FLUSH, 1000)});
    client.wait(1000);
    EXPECT_EQ(client.completions.size(), 301u);
    virtio_sst_request request{};
    request.type = SHMGEMM_OP_ECHO;
    request.id = 5;
    request.payload[7] = 77;
    client.send(SHMGEMM_LINK_REQUEST, &request, sizeof request);
    while (client.responses.empty()) ASSERT_TRUE(client.collect());
    EXPECT_EQ(client.responses[5].payload[7], 77);
  };
  std::thread first(work, 0), second(work, 1), third(work, 0);
  first.join();
  second.join();
  third.join();
}

TEST(Links, ComeAndGoWithOpsInFlight) {
  Served served;
  std::atomic<int> rounds{0};
  const auto come_and_go = [&] {
    for (int round = rounds++; round < 100; round = rounds++) {
      Client client(served.path());
      std::vector<shmgemm_command> commands;
      for (std::uint64_t id = 1; id <= 100; ++id) {
        commands.push_back(served.host().product(id, 3));
        if (id == 40 && round % 2 == 0) commands.back().flags |= SHMGEMM_FLAG_FLUSH;
      }
      client.submit(commands);
      if (round % 6 == 0) client.wait(1);
    }
  };
  std::thread one(come_and_go), other(come_and_go);
  one.join();
  other.join();
  Client client(served.path());
  client.submit({served.host().command(SHMGEMM_OP_FLUSH, 1)});
  client.wait(1);
}

TEST(Links, TheEngineStopsWithLinksOpen) {
  auto served = std::make_unique<Served>();
  Client client(served->path());
  client.submit({served->host().product(1, 5)});
  served.reset();
  EXPECT_FALSE(client.collect());
}

TEST(Links, PathsThatCannotBe) {
  Host host;
  const auto links_at = [&host](const std::string& path) {
    engine::Links links(path, *host.port, [](const std::string&) {});
  };
  EXPECT_THROW(links_at(""), std::runtime_error);
  EXPECT_THROW(links_at(std::string(108, 'x')), std::runtime_error);
  EXPECT_THROW(links_at("/nowhere/at/all"), std::runtime_error);
  EXPECT_THROW(links_at("/dev/null"), std::runtime_error);
  Served served;
  EXPECT_THROW(links_at(served.path()), std::runtime_error);
  EXPECT_EQ(access(served.path().c_str(), F_OK), 0);
}

// Its one op waits for ever in front of another host's: it is taken away.
TEST(HostPort, ALinkThatIsGoneLeavesNothingBehind) {
  Host host;
  auto bell = std::make_shared<engine::Bell>();
  auto link = std::make_shared<engine::LinkConnection>(bell);
  auto late = host.product(1, 10);
  late.release_cycles = 1'000'000;
  link->put(late, 0);
  link->put(host.product(2, 10), 0);
  auto computes = host.command(SHMGEMM_OP_COMPUTE, 3);
  link->put(computes, 0);
  link->put(host.product(4, 10), 0);  // waits for an op that has no values to be had ahead
  host.port->connect(link);
  host.serve();
  EXPECT_EQ(host.products.size(), 2u);
  host.products.clear();
  host.send(host.command(SHMGEMM_OP_FLUSH, 3));
  link->hang_up();
  auto mine = host.product(4, 10);
  mine.flags |= SHMGEMM_FLAG_FLUSH;
  host.send(mine);
  host.serve();
  EXPECT_EQ(host.end(4), 10u);
  EXPECT_EQ(host.products.size(), 1u);
  EXPECT_FALSE(link->answered());
  EXPECT_EQ(link.use_count(), 1);
}

// What has started ends in its time, unanswered.
TEST(HostPort, ALinkThatGoesWhileItsOpRuns) {
  Host host;
  auto link = std::make_shared<engine::LinkConnection>(std::make_shared<engine::Bell>());
  auto long_one = host.product(1, 1000);
  long_one.flags |= SHMGEMM_FLAG_FLUSH;
  link->put(long_one, 0);
  host.port->connect(link);
  host.port->poll();
  EXPECT_TRUE(host.port->flushing());
  link->hang_up();
  host.port->run_next();
  EXPECT_FALSE(host.port->flushing());
  auto mine = host.product(2, 10);
  mine.flags |= SHMGEMM_FLAG_FLUSH;
  host.send(mine);
  host.serve();
  EXPECT_EQ(host.start(2), 1000u);
  EXPECT_FALSE(link->answered());
  host.serve();
  EXPECT_EQ(link.use_count(), 1);
}

}  // namespace
