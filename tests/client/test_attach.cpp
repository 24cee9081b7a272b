// What may listen at a session's socket besides an engine: an attach ends in an error that says so,
// and no descriptor stays open.
#include "client/attach.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "region/error.h"

namespace {

using namespace shmgemm;

constexpr std::chrono::milliseconds kShort{200}, kLong{10000};

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// Takes one client, reads its HELLO, does what it is told and hangs up.
class Listener {
 public:
  using Act = std::function<void(int)>;

  explicit Listener(Act act) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    char name[] = "/tmp/shmgemm-attach-XXXXXX";
    folder_ = mkdtemp(name);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
    thread_ = std::thread([this, act = std::move(act)] {
      const int client = accept(fd_, nullptr, nullptr);
      char hello[sizeof(shmgemm_link_head) + sizeof(shmgemm_link_hello)];
      EXPECT_EQ(recv(client, hello, sizeof hello, MSG_WAITALL), ssize_t{sizeof hello});
      act(client);
      close(client);
    });
  }
  ~Listener() {
    thread_.join();
    close(fd_);
    std::filesystem::remove_all(folder_);
  }
  std::string path() const { return folder_ + "/socket"; }

 private:
  std::string folder_;
  int fd_;
  std::thread thread_;
};

shmgemm_link_hello hello_of(const region::Region* region) {
  shmgemm_link_hello hello{};
  hello.magic = SHMGEMM_LINK_MAGIC;
  hello.abi_major = SHMGEMM_ABI_MAJOR;
  hello.role = SHMGEMM_LINK_ENGINE;
  hello.devices = 3;
  if (region != nullptr) {
    hello.region_id[0] = region->id()[0];
    hello.region_id[1] = region->id()[1];
  }
  return hello;
}

// One frame, with a descriptor where `passed` is one.
void send_frame(int to, std::uint32_t kind, std::string content, int passed = -1) {
  const shmgemm_link_head head{kind, static_cast<std::uint32_t>(content.size())};
  content.insert(0, reinterpret_cast<const char*>(&head), sizeof head);
  iovec piece{content.data(), content.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (passed >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const first = CMSG_FIRSTHDR(&message);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(first), &passed, sizeof passed);
  }
  (void)!sendmsg(to, &message, MSG_NOSIGNAL);
}

template <class Record>
std::string bytes_of(const Record& record) {
  return {reinterpret_cast<const char*>(&record), sizeof record};
}

void greet(int to, const region::Region* region = nullptr) {
  send_frame(to, SHMGEMM_LINK_HELLO, bytes_of(hello_of(region)));
}

std::string lease(std::uint32_t queue_pair, std::uint32_t clients = 1) {
  return bytes_of(shmgemm_link_lease{queue_pair, clients, 0});
}

template <class Expected>
std::string error_of(Listener::Act act, std::chrono::milliseconds limit = kLong) {
  const std::size_t before = open_descriptors();
  std::string text;
  {
    Listener listener(std::move(act));
    try {
      client::Attachment attachment(listener.path(), region::Clock::now() + limit);
      ADD_FAILURE() << "attached";
    } catch (const Expected& error) {
      text = error.what();
    }
  }
  EXPECT_EQ(open_descriptors(), before);
  return text;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Attach, ToWhatHangsUp) {
  EXPECT_TRUE(has(error_of<DeviceLost>([](int) {}), "hung up"));
  EXPECT_TRUE(has(error_of<DeviceLost>([](int to) { greet(to); }), "hung up"));
}

TEST(Attach, ToWhatSaysNothing) {
  const auto silent = [](int to) {
    char byte;
    (void)!recv(to, &byte, 1, 0);  // until the client has had enough
  };
  EXPECT_TRUE(has(error_of<DeviceTimeout>(silent, kShort), "did not answer in time"));
}

TEST(Attach, ToWhatIsNoEngine) {
  const auto says = [](std::uint32_t kind, const std::string& content) {
    return error_of<ProtocolError>([=](int to) { send_frame(to, kind, content); });
  };
  shmgemm_link_hello hello = hello_of(nullptr);
  hello.magic = 1;
  EXPECT_TRUE(has(says(SHMGEMM_LINK_HELLO, bytes_of(hello)), "magic"));
  hello = hello_of(nullptr);
  hello.abi_major = 9;
  EXPECT_TRUE(has(says(SHMGEMM_LINK_HELLO, bytes_of(hello)), "ABI version 9"));
  EXPECT_TRUE(has(says(SHMGEMM_LINK_HELLO, "short"), "another size"));
  EXPECT_TRUE(has(says(SHMGEMM_LINK_COMPLETIONS, std::string(64, 'x')), "kind 3"));
  EXPECT_TRUE(has(says(77, std::string(SHMGEMM_LINK_MAX_BYTES + 1, 'x')), "32769 bytes"));
}

TEST(Attach, RefusedWithReason) {
  const auto refuse = [](int to) { send_frame(to, SHMGEMM_LINK_FAILED, "no such role"); };
  EXPECT_TRUE(has(error_of<Unsupported>(refuse), "the engine says: no such role"));
}

TEST(Attach, NoPlaceLeft) {
  const auto full = [](int to) {
    greet(to);
    send_frame(to, SHMGEMM_LINK_LEASE, lease(SHMGEMM_LINK_NO_QUEUE_PAIR, 3));
  };
  EXPECT_TRUE(has(error_of<RegionFull>(full), "clients=3"));
  const auto none = [](int to) {
    greet(to);
    send_frame(to, SHMGEMM_LINK_LEASE, lease(SHMGEMM_LINK_NO_QUEUE_PAIR, 0));
  };
  EXPECT_TRUE(has(error_of<RegionFull>(none), "no place for other processes"));
}

TEST(Attach, LeasesThatCannotBe) {
  const auto region = region::Region::create(4 << 20, 1, 0, 1, 1);
  const auto other = region::Region::create(4 << 20, 1, 0, 1, 1);
  const auto told = [&](const std::string& content, int fd) {
    return error_of<ProtocolError>([&](int to) {
      greet(to, region.get());
      send_frame(to, SHMGEMM_LINK_LEASE, content, fd);
    });
  };
  EXPECT_TRUE(has(told("abc", region->fd()), "a LEASE of 3 bytes"));
  EXPECT_TRUE(has(told(lease(1), -1), "without the region"));
  EXPECT_TRUE(has(told(lease(1), other->fd()), "another region"));
  EXPECT_TRUE(has(told(lease(2), region->fd()), "queue pair 2 of a region with 2"));
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_TRUE(has(told(lease(1), null), "region file of 0 bytes"));
  close(null);
}

// Queue pair 0 is the owner's, whatever an engine says; an arena that is held is not had twice.
TEST(Attach, ArenasThatAreNotOurs) {
  const auto region = region::Region::create(4 << 20, 1, 0, 1, 1);
  const auto gives = [&](std::uint32_t queue_pair) {
    return [&region, queue_pair](int to) {
      greet(to, region.get());
      send_frame(to, SHMGEMM_LINK_LEASE, lease(queue_pair), region->fd());
    };
  };
  EXPECT_TRUE(has(error_of<ProtocolError>(gives(0)), "queue pair 0"));
  const region::ArenaLease held(region->fd(), region->client_arena(1));
  EXPECT_TRUE(has(error_of<RegionFull>(gives(1)), "leased by another process"));
}

TEST(Attach, TheArenaIsLetGoWithTheLastBlock) {
  const auto region = region::Region::create(4 << 20, 1, 0, 1, 1);
  const shmgemm_arena arena = region->client_arena(1);
  const auto is_held = [&] { return region::ArenaLease::is_held(region->fd(), arena); };
  Listener listener([&](int to) {
    greet(to, region.get());
    send_frame(to, SHMGEMM_LINK_LEASE, lease(1) + "model=x\nclock=1GHz\nnonsense\n", region->fd());
  });
  SessionOptions options;
  options.attach_path = listener.path();
  auto attachment = client::attach(options, region::Clock::now() + kLong);
  EXPECT_EQ(options.devices, 3u);
  const std::map<std::string, std::string> parameters{{"model", "x"}, {"clock", "1GHz"}};
  EXPECT_EQ(options.parameters, parameters);
  auto heap = attachment->heap();
  EXPECT_TRUE(is_held());
  auto one = heap->allocate(100), other = heap->allocate(100);
  EXPECT_GE(one->offset(), arena.offset);
  EXPECT_LT(one->offset(), arena.offset + arena.bytes);
  heap->retire();
  EXPECT_THROW(heap->allocate(100), DeviceLost);
  one.reset();
  EXPECT_TRUE(is_held());
  other.reset();
  EXPECT_FALSE(is_held());
}

}  // namespace
