// Simulated time runs forward, ties run in the order they were given, and callbacks may add events.
#include "model/event_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

namespace shmgemm::model {
namespace {

void drain(EventQueue& queue) {
  while (!queue.empty()) queue.run_next();
}

TEST(EventQueue, RunsInTimeOrder) {
  EventQueue queue;
  std::vector<Cycle> seen;
  for (const Cycle time : {30, 10, 20, 0}) {
    queue.at(time, [&] { seen.push_back(queue.now()); });
  }
  drain(queue);
  EXPECT_EQ(seen, (std::vector<Cycle>{0, 10, 20, 30}));
  EXPECT_EQ(queue.now(), 30u);
}

TEST(EventQueue, TiesRunInInsertionOrder) {
  EventQueue queue;
  std::vector<int> seen;
  for (int i = 0; i < 100; ++i) queue.at(7, [&seen, i] { seen.push_back(i); });
  drain(queue);
  ASSERT_EQ(seen.size(), 100u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

// Against std::stable_sort, which is told of nothing but the times.
TEST(EventQueue, AgreesWithAStableSort) {
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    EventQueue queue;
    std::vector<std::pair<Cycle, int>> expected, seen;
    for (int i = 0; i < 500; ++i) {
      const Cycle time = random() % 40;
      expected.emplace_back(time, i);
      queue.at(time, [&, i] { seen.emplace_back(queue.now(), i); });
    }
    std::stable_sort(expected.begin(), expected.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    drain(queue);
    EXPECT_EQ(seen, expected);
  }
}

TEST(EventQueue, AnEventAddedAtThePresentCycleRunsAfterThoseThatWaitForIt) {
  EventQueue queue;
  std::vector<char> seen;
  queue.at(5, [&] {
    seen.push_back('a');
    queue.at(5, [&] { seen.push_back('c'); });
  });
  queue.at(5, [&] { seen.push_back('b'); });
  drain(queue);
  EXPECT_EQ(seen, (std::vector<char>{'a', 'b', 'c'}));
  EXPECT_EQ(queue.now(), 5u);
}

TEST(EventQueue, CallbacksMayAddManyEvents) {
  EventQueue queue;
  int runs = 0;
  queue.at(1, [&] {
    for (int i = 0; i < 1000; ++i) queue.at(2 + static_cast<Cycle>(i % 3), [&] { ++runs; });
  });
  drain(queue);
  EXPECT_EQ(runs, 1000);
  EXPECT_EQ(queue.now(), 4u);
}

TEST(EventQueue, TheCallbackIsGoneWhenItHasRun) {
  EventQueue queue;
  auto token = std::make_shared<int>(0);
  queue.at(1, [token] {});
  EXPECT_EQ(token.use_count(), 2);
  drain(queue);
  EXPECT_EQ(token.use_count(), 1);
}

TEST(EventQueue, AThrowingCallbackLeavesTheRestInPlace) {
  EventQueue queue;
  bool ran = false;
  queue.at(1, [] { throw std::runtime_error("from a callback"); });
  queue.at(2, [&] { ran = true; });
  EXPECT_THROW(queue.run_next(), std::runtime_error);
  drain(queue);
  EXPECT_TRUE(ran);
}

TEST(EventQueue, DropsTheEventsOfAnOwner) {
  std::mt19937 random(2);
  for (int round = 0; round < 20; ++round) {
    EventQueue queue;
    std::vector<std::pair<Cycle, int>> expected, seen;
    for (int i = 0; i < 300; ++i) {
      const Cycle time = random() % 40;
      const std::uint32_t owner = random() % 4;
      if (owner != 2) expected.emplace_back(time, i);
      queue.at(time, [&, i] { seen.emplace_back(queue.now(), i); }, owner);
    }
    queue.cancel(2);
    std::stable_sort(expected.begin(), expected.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    drain(queue);
    EXPECT_EQ(seen, expected);
  }
}

TEST(EventQueue, AnEventMayDropItsOwner) {
  EventQueue queue;
  int seen = 0;
  queue.at(1, [&] { queue.cancel(5); }, 5);
  queue.at(1, [&] { ++seen; }, 5);
  queue.at(2, [&] { ++seen; }, 6);
  EXPECT_EQ(queue.next_owner(), 5u);
  queue.run_next();
  EXPECT_EQ(queue.next_owner(), 6u);
  drain(queue);
  EXPECT_EQ(seen, 1);
  EXPECT_THROW(queue.next_owner(), std::logic_error);
}

TEST(EventQueue, RefusesThePast) {
  EventQueue queue;
  queue.at(10, [] {});
  drain(queue);
  EXPECT_THROW(queue.at(9, [] {}), std::logic_error);
  EXPECT_TRUE(queue.empty());
  EXPECT_NO_THROW(queue.at(10, [] {}));
}

TEST(EventQueue, RefusesWhatCannotRun) {
  EventQueue queue;
  EXPECT_THROW(queue.at(1, nullptr), std::logic_error);
  EXPECT_THROW(queue.next_time(), std::logic_error);
  EXPECT_THROW(queue.run_next(), std::logic_error);
}

TEST(EventQueue, AdvancesOverIdleTimeOnly) {
  EventQueue queue;
  queue.advance_to(5);
  EXPECT_EQ(queue.now(), 5u);
  queue.at(8, [] {});
  queue.advance_to(8);
  EXPECT_EQ(queue.now(), 8u);
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_THROW(queue.advance_to(9), std::logic_error);
  EXPECT_THROW(queue.advance_to(7), std::logic_error);
}

TEST(EventQueue, HoldsTheLastCycleOfTime) {
  EventQueue queue;
  queue.at(UINT64_MAX, [] {});
  EXPECT_EQ(queue.next_time(), UINT64_MAX);
  drain(queue);
  EXPECT_EQ(queue.now(), UINT64_MAX);
}

}  // namespace
}  // namespace shmgemm::model
