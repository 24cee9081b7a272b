// A channel that goes through a device server: records arrive as they were sent, answers come in
// any order and cut anywhere, and a server that talks nonsense or hangs up ends every call in an
// error.
#include "client/server_port.h"

#include <cstring>

#include "client/channel.h"
#include "fake_server.h"

namespace shmgemm {
namespace {

using namespace std::chrono_literals;
using client::Channel;
using client::Failure;
using client::Heap;
using client::ServerPort;

std::vector<shmgemm_command> read_frame(int fd) {
  char head[client::kWireHeadBytes];
  if (!FakeServer::read_all(fd, head, sizeof head)) return {};
  EXPECT_EQ(client::read_big_endian(head), 0xdeadbeef);
  EXPECT_EQ(head[8], 16);
  const std::uint32_t bytes = client::read_big_endian(head + 4);
  EXPECT_EQ(bytes % 128, 0u);
  std::vector<shmgemm_command> commands(bytes / 128);
  return FakeServer::read_all(fd, commands.data(), bytes) ? commands
                                                          : std::vector<shmgemm_command>();
}

shmgemm_completion answer_to(const shmgemm_command& command) {
  shmgemm_completion completion{};
  completion.id = command.id;
  completion.generation = command.generation;
  completion.busy_cycles = command.arg[0];
  return completion;
}

std::vector<char> block_of(const std::vector<shmgemm_completion>& completions) {
  const std::size_t bytes = completions.size() * 64;
  std::vector<char> block(4 + bytes);
  client::write_big_endian(block.data(), static_cast<std::uint32_t>(bytes));
  std::memcpy(block.data() + 4, completions.data(), bytes);
  return block;
}

void answer_in_order(int fd, int) {
  for (std::vector<shmgemm_command> commands; !(commands = read_frame(fd)).empty();) {
    std::vector<shmgemm_completion> completions;
    for (const shmgemm_command& command : commands) {
      if (command.op != SHMGEMM_OP_FLUSH) completions.push_back(answer_to(command));
    }
    const std::vector<char> block = block_of(completions);
    FakeServer::write_all(fd, block.data(), block.size());
  }
}

class ServerPortTest : public testing::Test {
 protected:
  ServerPortTest() : heap(std::make_shared<Heap>(SHMGEMM_MIN_REGION_BYTES)), channel(heap) {
    heap->region().begin_generation();
  }
  ServerPort& begin(const FakeServer& server) {
    auto port = std::make_unique<ServerPort>(server.address(), soon());
    ServerPort& result = *port;
    channel.begin(std::move(port), heap->region().generation());
    return result;
  }
  static region::Clock::time_point soon() { return region::Clock::now() + 10s; }
  std::uint64_t submit(std::uint64_t value, bool flush = true) {
    shmgemm_command command{};
    command.op = SHMGEMM_OP_ECHO;
    command.flags = flush ? SHMGEMM_FLAG_FLUSH : 0u;
    command.arg[0] = value;
    return channel.submit(command, false, soon());
  }
  std::uint64_t wait(std::uint64_t id) {
    return channel.wait(id, soon(), region::Expect::kShort).busy_cycles;
  }

  std::shared_ptr<Heap> heap;
  Channel channel;
};

TEST_F(ServerPortTest, ManyThreadsShareAConnection) {
  FakeServer server(answer_in_order);
  begin(server);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 200; ++i) wrong += wait(submit(1000 * t + i)) != 1000 * t + i;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(server.accepted(), 1);
}

TEST_F(ServerPortTest, WhatIsNotFlushedTravelsTogether) {
  std::atomic<int> frames{0};
  FakeServer server([&](int fd, int) {
    for (std::vector<shmgemm_command> commands; !(commands = read_frame(fd)).empty();) {
      ++frames;
      std::vector<shmgemm_completion> completions;
      for (const shmgemm_command& command : commands) completions.push_back(answer_to(command));
      const std::vector<char> block = block_of(completions);
      FakeServer::write_all(fd, block.data(), block.size());
    }
  });
  begin(server);
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 40; ++i) ids.push_back(submit(i, i == 39));
  EXPECT_EQ(wait(ids[39]), 39u);
  EXPECT_EQ(frames.load(), 1);
  for (std::uint64_t i = 0; i < 39; ++i) EXPECT_EQ(wait(ids[i]), i);
}

TEST_F(ServerPortTest, AnswersMayBeReversedAndCutAnywhere) {
  FakeServer server([](int fd, int) {
    for (std::vector<shmgemm_command> commands; !(commands = read_frame(fd)).empty();) {
      std::vector<char> bytes;
      for (auto command = commands.rbegin(); command != commands.rend(); ++command) {
        const std::vector<char> block = block_of({answer_to(*command)});
        bytes.insert(bytes.end(), block.begin(), block.end());
      }
      for (std::size_t at = 0; at < bytes.size(); at += 37) {
        FakeServer::write_all(fd, bytes.data() + at, std::min<std::size_t>(37, bytes.size() - at));
        std::this_thread::yield();
      }
    }
  });
  begin(server);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::uint64_t> ids;
    for (std::uint64_t i = 0; i < 60; ++i) ids.push_back(submit(i, i == 59));
    for (std::uint64_t i = 0; i < 60; ++i) EXPECT_EQ(wait(ids[i]), i);
  }
}

class NonsenseTest : public ServerPortTest, public testing::WithParamInterface<std::uint32_t> {};

TEST_P(NonsenseTest, EndsTheConnection) {
  FakeServer server([](int fd, int) {
    read_frame(fd);
    char size[4 + 128] = {};
    client::write_big_endian(size, GetParam());
    FakeServer::write_all(fd, size, sizeof size);
    read_frame(fd);
  });
  std::atomic<bool> told{false};
  ServerPort* port = nullptr;
  channel.set_on_nonsense([&] { told.store(true); });
  port = &begin(server);
  const std::uint64_t id = submit(1);
  std::thread monitor([&] {
    while (!told.load()) std::this_thread::sleep_for(1ms);
    port->connection().hang_up();
    channel.fail(Failure::kLost, "the connection was closed");
  });
  EXPECT_THROW(wait(id), ProtocolError);
  monitor.join();
}

INSTANTIATE_TEST_SUITE_P(Sizes, NonsenseTest,
                         testing::Values(0u, 1u, 63u, 65u, 64u * 257u, 0xffffffffu, 64u));

TEST_F(ServerPortTest, AServerThatHangsUpFailsWhatIsInFlight) {
  FakeServer server([](int fd, int) { read_frame(fd); });
  begin(server);
  const std::uint64_t id = submit(1);
  std::thread monitor([&] {
    std::this_thread::sleep_for(50ms);
    channel.fail(Failure::kLost, "it is gone");
  });
  EXPECT_THROW(wait(id), DeviceLost);
  monitor.join();
  EXPECT_FALSE(channel.has_in_flight());
}

TEST_F(ServerPortTest, NobodyListens) {
  client::ServerAddress address;
  {
    address = FakeServer([](int, int) {}).address();
  }
  EXPECT_THROW(ServerPort(address, soon()), DeviceLost);
}

TEST(Address, IsCheckedBeforeUse) {
  EXPECT_EQ(client::parse_address("127.0.0.1:9999").port, 9999);
  for (const char* text :
       {"", ":", "host", "host:", ":99", "host:0", "host:65536", "h:9x", "h:-1"}) {
    EXPECT_THROW(client::parse_address(text), Unsupported) << text;
  }
}

}  // namespace
}  // namespace shmgemm
