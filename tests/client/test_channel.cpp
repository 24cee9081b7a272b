// The channel with a HostPort on the other side, both as threads of one process (so that
// ThreadSanitizer sees them): many callers, credits, abandoned commands, failures, quarantine.
#include "client/channel.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "direct.h"
#include "engine/host_port.h"
#include "model/event_queue.h"

namespace {

using namespace std::chrono_literals;
using shmgemm::client::Channel;
using shmgemm::client::Failure;
using shmgemm::client::Heap;
using shmgemm::region::Expect;
namespace engine = shmgemm::engine;
namespace model = shmgemm::model;

// An engine without a process. It can be told to take nothing for a while.
class Engine {
 public:
  explicit Engine(const std::shared_ptr<Heap>& heap)
      : region_(shmgemm::region::Region::attach(dup(heap->region().fd()))) {
    engine::HostPortOptions options;
    options.compute = [](const shmgemm::compute::Gemm*, std::size_t) {};
    const model::ParameterMap parameters{{"model", "scalesim_os"}};
    const model::Hardware hardware(parameters);
    port_ = std::make_unique<engine::HostPort>(
        region_, std::vector<engine::DeviceSetup>{{hardware}}, events_, options);
    thread_ = std::thread([this] { serve(); });
  }
  ~Engine() {
    port_->stop();
    thread_.join();
  }
  void hold(bool on) { held_.store(on); }

 private:
  void serve() {
    while (!port_->stopped()) {
      if (held_.load()) {
        std::this_thread::sleep_for(1ms);
        continue;
      }
      if (!port_->poll()) port_->wait(10ms);
      while (port_->flushing()) port_->run_next();
    }
  }
  std::shared_ptr<shmgemm::region::Region> region_;
  model::EventQueue events_;
  std::unique_ptr<engine::HostPort> port_;
  std::atomic<bool> held_{false};
  std::thread thread_;
};

struct Heir final : shmgemm::client::Orphan {
  explicit Heir(std::vector<std::uint64_t>& told) : told_(told) {}
  void ended(const shmgemm_completion& completion) override {
    told_.push_back(completion.busy_cycles);
  }
  std::vector<std::uint64_t>& told_;
};

class ChannelTest : public testing::Test {
 protected:
  ChannelTest() : heap(std::make_shared<Heap>(4 << 20)), channel(heap) {
    begin_direct(*heap, channel);
  }
  static shmgemm_command echo(std::uint64_t value, bool flush = true) {
    shmgemm_command command{};
    command.op = SHMGEMM_OP_ECHO;
    command.flags = flush ? SHMGEMM_FLAG_FLUSH : 0u;
    command.arg[0] = value;
    return command;
  }
  shmgemm_completion wait(std::uint64_t id) {
    return channel.wait(id, Channel::kNoDeadline, Expect::kShort);
  }
  std::uint64_t submit(const shmgemm_command& command, bool pin = false) {
    return channel.submit(command, pin, Channel::kNoDeadline);
  }

  std::shared_ptr<Heap> heap;
  Channel channel;
};

TEST_F(ChannelTest, AnswersComeBackToWhoAsked) {
  Engine engine(heap);
  for (std::uint64_t i = 0; i < 2000; ++i) EXPECT_EQ(wait(submit(echo(i))).busy_cycles, i);
}

TEST_F(ChannelTest, ManyThreadsShareIt) {
  Engine engine(heap);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 300; ++i) {
        if (wait(submit(echo(1000 * t + i))).busy_cycles != 1000 * t + i) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_FALSE(channel.has_in_flight());
}

TEST_F(ChannelTest, AnUnflushedCommandIsFlushedByItsWaiter) {
  Engine engine(heap);
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < 60; ++i) ids.push_back(submit(echo(i, false)));
  for (std::uint64_t i = 60; i > 0; --i) EXPECT_EQ(wait(ids[i - 1]).busy_cycles, i - 1);
}

TEST_F(ChannelTest, AFullRingOfUnflushedCommandsIsFlushedByWhoComesNext) {
  Engine engine(heap);
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < SHMGEMM_RING_SLOTS - 1; ++i) {
    ids.push_back(submit(echo(i, false), true));
  }
  EXPECT_THROW(channel.submit(echo(9), true, shmgemm::region::Clock::now() + 60s),
               shmgemm::Unsupported);
  for (std::uint64_t i = 0; i < ids.size(); ++i) EXPECT_EQ(wait(ids[i]).busy_cycles, i);
}

TEST_F(ChannelTest, ResultsThatNobodyTakesForLongAreSetAside) {
  Engine engine(heap);
  constexpr std::uint64_t kMany = 5 * SHMGEMM_RING_SLOTS;
  std::vector<std::uint64_t> ids, told;
  for (std::uint64_t i = 0; i < kMany; ++i) ids.push_back(submit(echo(i, false)));
  channel.abandon(ids[3], std::make_shared<Heir>(told));
  EXPECT_EQ(told, std::vector<std::uint64_t>{3});
  EXPECT_THROW(wait(ids[3]), shmgemm::Unsupported);
  for (std::uint64_t i = kMany; i > 4; --i) EXPECT_EQ(wait(ids[i - 1]).busy_cycles, i - 1);
  EXPECT_THROW(channel.take(ids[5]), shmgemm::Unsupported);
}

TEST_F(ChannelTest, LostResultsAreSetAsideAsWell) {
  std::vector<std::uint64_t> ids;
  {
    Engine engine(heap);
    engine.hold(true);
    for (std::uint64_t i = 0; i < SHMGEMM_RING_SLOTS - 1; ++i) ids.push_back(submit(echo(i)));
    channel.fail(Failure::kLost, "gone");
  }
  begin_direct(*heap, channel);
  Engine next(heap);
  for (int i = 0; i < 300; ++i) ids.push_back(submit(echo(7, false)));
  EXPECT_TRUE(channel.end_of(ids[0]).lost);
  EXPECT_THROW(wait(ids[0]), shmgemm::DeviceLost);
  EXPECT_EQ(wait(ids.back()).busy_cycles, 7u);
}

TEST_F(ChannelTest, TheEndOfWhatHasSettledIsKnownUntilItIsTaken) {
  Engine engine(heap);
  shmgemm_command noop{};
  noop.op = SHMGEMM_OP_NOOP;
  noop.release_cycles = 70;
  const std::uint64_t id = submit(noop);
  channel.await(id, Channel::kNoDeadline, Expect::kShort);
  EXPECT_EQ(channel.end_of(id).cycles, 70u);
  for (std::uint64_t i = 0; i < 2 * SHMGEMM_RING_SLOTS; ++i) submit(echo(i, false));
  EXPECT_EQ(channel.end_of(id).cycles, 70u) << "set aside";
  EXPECT_FALSE(channel.end_of(id).lost);
  wait(id);
  EXPECT_EQ(channel.end_of(id).cycles, 0u);
}

TEST_F(ChannelTest, CreditsHoldBackWhatTheRingCannotTake) {
  Engine engine(heap);
  engine.hold(true);
  std::vector<std::uint64_t> ids;
  for (std::uint64_t i = 0; i < SHMGEMM_RING_SLOTS - 1; ++i) ids.push_back(submit(echo(i, false)));
  EXPECT_THROW(channel.submit(echo(9), false, shmgemm::region::Clock::now() + 30ms),
               shmgemm::DeviceTimeout);
  engine.hold(false);
  for (std::uint64_t i = 0; i < ids.size(); ++i) EXPECT_EQ(wait(ids[i]).busy_cycles, i);
  EXPECT_EQ(wait(submit(echo(7))).busy_cycles, 7u);
}

TEST_F(ChannelTest, ADeadlineLeavesTheCommandBehind) {
  Engine engine(heap);
  engine.hold(true);
  const std::uint64_t id = submit(echo(1));
  EXPECT_THROW(channel.wait(id, shmgemm::region::Clock::now() + 20ms, Expect::kShort),
               shmgemm::DeviceTimeout);
  EXPECT_THROW(wait(id), shmgemm::Unsupported);  // nobody's any more
  engine.hold(false);
  EXPECT_EQ(wait(submit(echo(2))).busy_cycles, 2u);
  channel.reap_abandoned();
  EXPECT_FALSE(channel.has_in_flight());
}

TEST_F(ChannelTest, SeveralCommandsAtOnce) {
  Engine engine(heap);
  std::vector<shmgemm_command> commands;
  for (std::uint64_t i = 0; i < Channel::kMostTogether; ++i) commands.push_back(echo(i, false));
  for (int round = 0; round < 20; ++round) {
    channel.submit(commands.data(), commands.size(), Channel::kNoDeadline);
    for (std::uint64_t i = 0; i < commands.size(); ++i) {
      EXPECT_EQ(wait(commands[i].id).busy_cycles, i);
    }
  }
  // The flushes that waiting asked for may be answered a moment later.
  for (int i = 0; i < 5000 && channel.has_in_flight(); ++i) {
    std::this_thread::sleep_for(1ms);
    channel.reap_abandoned();
  }
  EXPECT_FALSE(channel.has_in_flight());
}

TEST_F(ChannelTest, AwaitingTakesNothing) {
  Engine engine(heap);
  engine.hold(true);
  const std::uint64_t id = submit(echo(7, false));
  EXPECT_FALSE(channel.settled(id));
  EXPECT_FALSE(channel.await(id, shmgemm::region::Clock::now() + 5ms, Expect::kShort));
  EXPECT_THROW(channel.take(id), shmgemm::Unsupported);
  engine.hold(false);
  EXPECT_TRUE(channel.await(id, Channel::kNoDeadline, Expect::kShort));
  EXPECT_TRUE(channel.settled(id));
  EXPECT_EQ(channel.take(id).busy_cycles, 7u);
  EXPECT_TRUE(channel.settled(id));  // as there is nothing left to wait for
  EXPECT_THROW(channel.take(id), shmgemm::Unsupported);
}

TEST_F(ChannelTest, AnHeirIsToldAndLetGo) {
  Engine engine(heap);
  std::vector<std::uint64_t> told;
  auto heir = std::make_shared<Heir>(told);
  const std::weak_ptr<Heir> seen = heir;
  engine.hold(true);
  const std::uint64_t before = submit(echo(1, false));
  channel.abandon(before, std::move(heir));
  EXPECT_FALSE(seen.expired());
  engine.hold(false);
  EXPECT_EQ(wait(submit(echo(2))).busy_cycles, 2u);
  EXPECT_EQ(told, (std::vector<std::uint64_t>{1}));
  EXPECT_TRUE(seen.expired());
  // One that is answered already is told at once.
  const std::uint64_t answered = submit(echo(3));
  EXPECT_TRUE(channel.await(answered, Channel::kNoDeadline, Expect::kShort));
  channel.abandon(answered, std::make_shared<Heir>(told));
  EXPECT_EQ(told, (std::vector<std::uint64_t>{1, 3}));
}

TEST_F(ChannelTest, AnHeirOfALostCommandIsLetGoUntold) {
  std::vector<std::uint64_t> told;
  auto heir = std::make_shared<Heir>(told);
  const std::weak_ptr<Heir> seen = heir;
  channel.abandon(submit(echo(1, false)), std::move(heir));
  const std::uint64_t awaited = submit(echo(2, false));
  channel.fail(Failure::kLost, "it is gone");
  EXPECT_TRUE(seen.expired());
  EXPECT_TRUE(told.empty());
  EXPECT_TRUE(channel.settled(awaited));
  EXPECT_THROW(channel.take(awaited), shmgemm::DeviceLost);
}

shmgemm_command product(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_GEMM;
  command.dtype_in = command.dtype_out = SHMGEMM_DTYPE_FLOAT32;
  command.m = command.n = command.k = command.batch = 1;
  command.lda = command.ldb = command.ldc = 1;
  command.a = a;
  command.b = b;
  command.c = c;
  return command;
}

TEST_F(ChannelTest, ABlockInFlightIsQuarantined) {
  Engine engine(heap);
  engine.hold(true);
  auto a = heap->allocate(64), b = heap->allocate(64), c = heap->allocate(64);
  const std::uint64_t used = heap->allocator().used_bytes();
  const std::uint64_t id = submit(product(a->offset(), b->offset(), c->offset()));
  EXPECT_THROW(channel.wait(id, shmgemm::region::Clock::now() + 5ms, Expect::kShort),
               shmgemm::DeviceTimeout);
  a = b = c = nullptr;  // the caller gave up and let go
  EXPECT_EQ(heap->allocator().used_bytes(), used);
  engine.hold(false);
  const auto end = shmgemm::region::Clock::now() + 10s;
  shmgemm_command flush{};
  flush.op = SHMGEMM_OP_FLUSH;
  wait(submit(flush));
  while (heap->allocator().used_bytes() != 0 && shmgemm::region::Clock::now() < end) {
    channel.reap_abandoned();
  }
  EXPECT_EQ(heap->allocator().used_bytes(), 0u);
}

TEST_F(ChannelTest, AFailureEndsEveryWaitAndFreesWhatWasPinned) {
  auto block = heap->allocate(192);
  std::vector<std::thread> threads;
  std::atomic<int> lost{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      const std::uint64_t id =
          channel.submit(product(block->offset(), block->offset() + 64, block->offset() + 128),
                         true, Channel::kNoDeadline);
      try {
        wait(id);
      } catch (const shmgemm::DeviceLost& error) {
        if (std::string(error.what()) == "it is gone") ++lost;
      }
    });
  }
  std::this_thread::sleep_for(30ms);
  channel.fail(Failure::kLost, "it is gone");
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(lost.load(), 4);
  EXPECT_THROW(submit(echo(1)), shmgemm::DeviceLost);
  block = nullptr;
  EXPECT_EQ(heap->allocator().used_bytes(), 0u);
  begin_direct(*heap, channel);
  Engine engine(heap);
  EXPECT_EQ(wait(submit(echo(3))).busy_cycles, 3u);
}

TEST_F(ChannelTest, WhatWasPublishedBeforeTheEndCounts) {
  std::uint64_t id = 0;
  {
    Engine engine(heap);
    id = submit(echo(5));
    while (__atomic_load_n(&heap->region().queue_pair(0)->completions[0].seq, __ATOMIC_SEQ_CST) ==
           0) {
      std::this_thread::yield();
    }
  }
  channel.fail(Failure::kLost, "it is gone");
  EXPECT_EQ(wait(id).busy_cycles, 5u);
}

// A peer that writes nonsense: what it says is not believed, and the engine is killed.
class NonsenseTest : public ChannelTest {
 protected:
  NonsenseTest() {
    channel.set_on_nonsense([this] { killed.store(true); });
  }
  void say(shmgemm_completion completion, std::uint32_t seq) {
    shmgemm_completion* slot = heap->region().queue_pair(0)->completions;
    using Words = shmgemm::region::RecordWords<shmgemm_completion>;
    Words::store(slot, completion);
    __atomic_store_n(&slot->seq, seq, __ATOMIC_SEQ_CST);
  }
  void expect_nonsense(shmgemm_completion completion, const std::string& text) {
    const std::uint64_t id = submit(echo(1));
    if (completion.id == 0) completion.id = id;
    say(completion, 1);
    std::thread monitor([&] {
      while (!killed.load()) std::this_thread::yield();
      channel.fail(Failure::kLost, "killed");
    });
    try {
      wait(id);
      FAIL() << "nonsense was believed";
    } catch (const shmgemm::ProtocolError& error) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
    monitor.join();
  }
  std::atomic<bool> killed{false};
};

TEST_F(NonsenseTest, OfAnotherGeneration) {
  shmgemm_completion completion{};
  completion.generation = 99;
  expect_nonsense(completion, "generation");
}

TEST_F(NonsenseTest, ForAnIdThatIsNotInFlight) {
  shmgemm_completion completion{};
  completion.generation = heap->region().generation();
  completion.id = 424242;
  expect_nonsense(completion, "424242");
}

TEST_F(NonsenseTest, ThatEndsBeforeItStarts) {
  shmgemm_completion completion{};
  completion.generation = heap->region().generation();
  completion.start_cycles = 10;
  completion.end_cycles = 9;
  expect_nonsense(completion, "not valid");
}

}  // namespace
