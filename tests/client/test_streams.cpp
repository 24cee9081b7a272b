// What a session remembers of streams.
#include "client/streams.h"

#include <gtest/gtest.h>

namespace {

using shmgemm::StreamMark;
using shmgemm::client::Channel;
using shmgemm::client::Heap;
using shmgemm::client::Streams;

class StreamsTest : public testing::Test {
 protected:
  const std::shared_ptr<Heap> heap = std::make_shared<Heap>(4 << 20);
  Channel here{heap}, there{heap};
  Streams streams;
};

TEST_F(StreamsTest, NothingIsKnownOfAnUnusedStream) {
  EXPECT_EQ(streams.last(1).channel, nullptr);
  EXPECT_TRUE(streams.take_dependencies(1, here).empty());
}

TEST_F(StreamsTest, TheEngineKeepsTheOrderWithinAChannel) {
  streams.sent(1, {&here, 10});
  EXPECT_EQ(streams.last(1).id, 10u);
  EXPECT_TRUE(streams.take_dependencies(1, here).empty());
  const auto elsewhere = streams.take_dependencies(1, there);
  ASSERT_EQ(elsewhere.size(), 1u);
  EXPECT_EQ(elsewhere[0].id, 10u);
}

TEST_F(StreamsTest, AWaitHoldsForTheNextOpAlone) {
  streams.wait(2, {&here, 5});
  streams.wait(2, {&here, 6});
  streams.wait(2, StreamMark{});  // a mark in a stream in which nothing was sent
  EXPECT_TRUE(streams.take_dependencies(1, here).empty());
  const auto waits = streams.take_dependencies(2, here);
  ASSERT_EQ(waits.size(), 2u);
  EXPECT_EQ(waits[0].id, 5u);
  EXPECT_EQ(waits[1].id, 6u);
  EXPECT_TRUE(streams.take_dependencies(2, here).empty());
}

}  // namespace
