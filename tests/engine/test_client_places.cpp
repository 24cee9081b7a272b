// Queue pairs that clients come to and leave: when one is free again, and that nothing of the
// client before is left in it.
#include "engine/client_places.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "host.h"
#include "region/arena_lease.h"

namespace {

using namespace shmgemm;
using engine::ClientPlaces;
using test::Host;

constexpr std::uint32_t kClients = 2;

class Places : public ::testing::Test {
 protected:
  std::shared_ptr<engine::ClientQueuePair> enter() {
    auto pair = places->take();
    if (!pair) return pair;
    host.port->connect(pair);
    commands.emplace(host.region->queue_pair(pair->index())->commands, SHMGEMM_RING_SLOTS);
    completions.emplace(host.region->queue_pair(pair->index())->completions, SHMGEMM_RING_SLOTS);
    return pair;
  }

  bool is_clear(std::uint32_t queue_pair) const {
    const auto* bytes = reinterpret_cast<const char*>(host.region->queue_pair(queue_pair));
    return std::all_of(bytes, bytes + sizeof(shmgemm_queue_pair), [](char c) { return c == 0; });
  }

  shmgemm_command flushed(std::uint64_t id, std::uint32_t cycles) const {
    auto command = host.product(id, cycles);
    command.flags |= SHMGEMM_FLAG_FLUSH;
    return command;
  }

  Host host{1,
            1,
            {{"model", "scalesim_os"}, {"clock", "1GHz"}, {"rows", "1"}, {"cols", "1"}},
            {},
            kClients};
  int freed = 0;
  std::shared_ptr<ClientPlaces> places =
      std::make_shared<ClientPlaces>(host.region, [this] { ++freed; });
  std::optional<region::RingProducer<shmgemm_command>> commands;  // of who came last
  std::optional<region::RingConsumer<shmgemm_completion>> completions;
};

TEST_F(Places, AreThoseTheRegionKeepsForClients) {
  EXPECT_EQ(places->count(), kClients);
  EXPECT_FALSE(places->all_in_use());
  const auto first = places->take(), second = places->take();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->index(), 1u);
  EXPECT_EQ(second->index(), 2u);
  EXPECT_TRUE(places->all_in_use());
  EXPECT_FALSE(places->any_free());
  EXPECT_EQ(places->take(), nullptr);
  second->hang_up();
  EXPECT_FALSE(places->all_in_use());  // one comes free
  EXPECT_FALSE(places->any_free());
}

TEST_F(Places, NoneWhereTheRegionKeepsNone) {
  Host alone;
  const auto none = std::make_shared<ClientPlaces>(alone.region, [] {});
  EXPECT_EQ(none->count(), 0u);
  EXPECT_TRUE(none->all_in_use());
  EXPECT_EQ(none->take(), nullptr);
}

TEST_F(Places, TheRingsAreServedOnceTaken) {
  auto pair = enter();
  commands->publish(flushed(1, 10));
  host.send(flushed(2, 10));
  host.serve();
  shmgemm_completion completion;
  ASSERT_TRUE(completions->poll(completion));
  EXPECT_EQ(completion.id, 1u);
  EXPECT_EQ(completion.status, SHMGEMM_STATUS_OK);
  EXPECT_TRUE(host.has(2));
}

// Killed in the middle of an op, with others behind it.
TEST_F(Places, ComeFreeWhenTheLastOpHasEnded) {
  auto pair = enter();
  const std::uint32_t index = pair->index();
  commands->publish(flushed(1, 1000));
  for (std::uint64_t id = 2; id < 100; ++id) commands->publish(host.product(id, 10));
  host.port->poll();
  ASSERT_TRUE(host.port->flushing());
  ASSERT_EQ(host.products.size(), 1u);
  pair->hang_up();
  pair.reset();
  EXPECT_EQ(freed, 0);
  host.serve();  // also where nobody else asks for anything
  EXPECT_EQ(freed, 1);
  EXPECT_EQ(host.products.size(), 1u);  // the others never began
  EXPECT_EQ(host.events.now(), 1000u);
  EXPECT_FALSE(is_clear(index));

  pair = enter();
  ASSERT_TRUE(pair);
  EXPECT_EQ(pair->index(), index);
  EXPECT_TRUE(is_clear(index));
  commands->publish(flushed(1, 10));
  host.serve();
  shmgemm_completion completion;
  ASSERT_TRUE(completions->poll(completion));
  EXPECT_EQ(completion.id, 1u);
  EXPECT_EQ(completion.start_cycles, 1000u);
  EXPECT_FALSE(completions->poll(completion));
}

TEST_F(Places, AreNotFreeWhileTheirArenaIsHeld) {
  auto pair = places->take();
  const shmgemm_arena arena = host.region->client_arena(pair->index());
  auto lease = std::make_unique<region::ArenaLease>(host.region->fd(), arena);
  ASSERT_TRUE(lease->held());
  const std::uint32_t index = pair->index();
  pair.reset();
  const auto other = places->take();
  EXPECT_NE(other->index(), index);
  EXPECT_FALSE(places->any_free());
  EXPECT_EQ(places->take(), nullptr);
  EXPECT_FALSE(places->all_in_use());
  lease.reset();
  ASSERT_TRUE(places->any_free());
  EXPECT_EQ(places->take()->index(), index);
}

TEST_F(Places, AThousandClientsOneAfterTheOther) {
  for (int round = 0; round < 1000; ++round) {
    auto pair = enter();
    ASSERT_TRUE(pair) << round;
    for (std::uint64_t id = 1; id <= 20; ++id) commands->publish(host.product(id, 1));
    if (round % 2 == 0) commands->publish(flushed(21, 1));
    host.port->poll();
    if (round % 3 == 0) host.serve();
    pair->hang_up();
    pair.reset();
    host.serve();
  }
  EXPECT_EQ(freed, 1000);
}

}  // namespace
