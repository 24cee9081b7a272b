// The ring: order, snapshots, and both sides at once as threads (run under ThreadSanitizer too).
#include "region/ring.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "abi/shmgemm_abi.h"

namespace {

using shmgemm::region::RingConsumer;
using shmgemm::region::RingProducer;

constexpr std::uint32_t kSlots = 8;

shmgemm_command command_of(std::uint64_t id) {
  shmgemm_command command{};
  command.id = id;
  command.m = static_cast<std::uint32_t>(3 * id);
  command.arg[3] = ~id;
  command.after = static_cast<std::uint32_t>(id * 7);
  return command;
}

void expect_whole(const shmgemm_command& command, std::uint64_t id) {
  EXPECT_EQ(command.id, id);
  EXPECT_EQ(command.m, static_cast<std::uint32_t>(3 * id));
  EXPECT_EQ(command.arg[3], ~id);
  EXPECT_EQ(command.after, static_cast<std::uint32_t>(id * 7));
}

TEST(Ring, EmptyGivesNothing) {
  std::vector<shmgemm_command> slots(kSlots);
  RingConsumer<shmgemm_command> consumer(slots.data(), kSlots);
  shmgemm_command command;
  EXPECT_FALSE(consumer.ready());
  EXPECT_FALSE(consumer.poll(command));
}

TEST(Ring, KeepsOrderOverManyRounds) {
  std::vector<shmgemm_command> slots(kSlots);
  RingProducer<shmgemm_command> producer(slots.data(), kSlots);
  RingConsumer<shmgemm_command> consumer(slots.data(), kSlots);
  std::uint64_t sent = 0, taken = 0;
  for (std::uint32_t round = 1; round < 1000; ++round) {
    for (std::uint32_t i = 0; i < round % kSlots + 1; ++i) producer.publish(command_of(++sent));
    shmgemm_command command;
    while (consumer.poll(command)) expect_whole(command, ++taken);
    ASSERT_EQ(taken, sent);
    EXPECT_FALSE(consumer.ready());
  }
}

TEST(Ring, ASnapshotDoesNotChangeWithTheSlot) {
  std::vector<shmgemm_completion> slots(kSlots);
  RingProducer<shmgemm_completion> producer(slots.data(), kSlots);
  RingConsumer<shmgemm_completion> consumer(slots.data(), kSlots);
  shmgemm_completion completion{};
  completion.id = 5;
  completion.end_cycles = 77;
  producer.publish(completion);
  shmgemm_completion taken;
  ASSERT_TRUE(consumer.poll(taken));
  slots[0].end_cycles = 1;
  EXPECT_EQ(taken.end_cycles, 77u);
  EXPECT_EQ(taken.seq, 1u);
}

TEST(Ring, AForeignSequenceWordIsNotARecord) {
  std::vector<shmgemm_command> slots(kSlots);
  RingConsumer<shmgemm_command> consumer(slots.data(), kSlots);
  shmgemm_command command;
  for (const std::uint32_t seq : {2u, 9u, 0xffffffffu}) {
    slots[0].seq = seq;
    EXPECT_FALSE(consumer.poll(command)) << seq;
  }
  slots[0].seq = 1;
  EXPECT_TRUE(consumer.poll(command));
}

TEST(Ring, BothSidesAsThreads) {
  constexpr std::uint64_t kRecords = 40000;
  std::vector<shmgemm_command> commands(kSlots);
  std::vector<shmgemm_completion> completions(kSlots);
  std::thread server([&] {
    RingConsumer<shmgemm_command> in(commands.data(), kSlots);
    RingProducer<shmgemm_completion> out(completions.data(), kSlots);
    for (std::uint64_t served = 0; served < kRecords;) {
      shmgemm_command command;
      if (!in.poll(command)) {
        std::this_thread::yield();
        continue;
      }
      shmgemm_completion completion{};
      completion.id = command.id;
      completion.busy_cycles = command.arg[3];
      out.publish(completion);
      ++served;
    }
  });
  RingProducer<shmgemm_command> out(commands.data(), kSlots);
  RingConsumer<shmgemm_completion> in(completions.data(), kSlots);
  std::uint64_t sent = 0, taken = 0;
  while (taken < kRecords) {
    if (sent < kRecords && sent - taken < kSlots) out.publish(command_of(++sent));
    shmgemm_completion completion;
    if (!in.poll(completion)) {
      std::this_thread::yield();
      continue;
    }
    ++taken;
    ASSERT_EQ(completion.id, taken);
    ASSERT_EQ(completion.busy_cycles, ~taken);
  }
  server.join();
}

}  // namespace
