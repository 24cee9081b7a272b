// The waiter: no wake-up is lost, limits hold, a peer that lies about `sleeping` does no harm.
#include "region/waiter.h"

#include <gtest/gtest.h>

#include <thread>

namespace {

using namespace std::chrono_literals;
using shmgemm::region::Clock;
using shmgemm::region::Expect;
using shmgemm::region::Waiter;
using shmgemm::region::wake;
using shmgemm::region::wake_if_sleeping;

struct Word {
  std::uint32_t value = 0;
  std::uint32_t load() const { return __atomic_load_n(&value, __ATOMIC_SEQ_CST); }
  void store(std::uint32_t next) { __atomic_store_n(&value, next, __ATOMIC_SEQ_CST); }
};

TEST(Waiter, ReturnsAtOnceWhenReady) {
  shmgemm_peer peer{};
  Waiter waiter(&peer);
  EXPECT_TRUE(waiter.wait([] { return true; }, 0ns));
  EXPECT_EQ(peer.sleeping, 0u);
}

TEST(Waiter, KeepsItsLimit) {
  shmgemm_peer peer{};
  Waiter waiter(&peer);
  const auto start = Clock::now();
  EXPECT_FALSE(waiter.wait([] { return false; }, 30ms));
  EXPECT_GE(Clock::now() - start, 29ms);
  EXPECT_EQ(peer.sleeping, 0u);
}

TEST(Waiter, NoWakeUpIsLost) {
  // Each side parks for up to 20 s: one lost wake-up and the test takes as long.
  constexpr std::uint32_t kRounds = 3000;
  shmgemm_peer ours{}, theirs{};
  Word ping, pong;
  std::thread peer([&] {
    Waiter waiter(&theirs);
    for (std::uint32_t i = 1; i <= kRounds; ++i) {
      ASSERT_TRUE(waiter.wait([&] { return ping.load() >= i; }, 20s,
                              i % 3 == 0 ? Expect::kLong : Expect::kShort));
      pong.store(i);
      wake_if_sleeping(&ours);
    }
  });
  Waiter waiter(&ours);
  const auto start = Clock::now();
  for (std::uint32_t i = 1; i <= kRounds; ++i) {
    ping.store(i);
    wake_if_sleeping(&theirs);
    ASSERT_TRUE(waiter.wait([&] { return pong.load() >= i; }, 20s,
                            i % 2 == 0 ? Expect::kLong : Expect::kShort));
  }
  peer.join();
  EXPECT_LT(Clock::now() - start, 19s);
}

TEST(Waiter, AStrangersWakeUpIsNoAnswer) {
  shmgemm_peer peer{};
  Word stop;
  std::thread stranger([&] {
    while (stop.load() == 0) {
      wake(&peer);
      std::this_thread::sleep_for(1ms);
    }
  });
  Waiter waiter(&peer);
  EXPECT_FALSE(waiter.wait([] { return false; }, 50ms, Expect::kLong));
  stop.store(1);
  stranger.join();
}

TEST(Waiter, CountsAllowedCpus) { EXPECT_GE(shmgemm::region::allowed_cpus(), 1u); }

}  // namespace
