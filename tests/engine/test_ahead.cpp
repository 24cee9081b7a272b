// Values before simulated time: which products are computed when, and that no cycle depends on it.
#include "engine/ahead.h"

#include <gtest/gtest.h>

#include "host.h"

namespace {

using shmgemm::test::Host;

// Products are told apart by their K, which is their cycles + 1.
std::vector<std::uint32_t> cycles_of(const std::vector<shmgemm::compute::Gemm>& products) {
  std::vector<std::uint32_t> cycles;
  for (const auto& product : products) cycles.push_back(product.k - 1);
  return cycles;
}

using Cycles = std::vector<std::uint32_t>;

TEST(Ahead, ValuesComeInTheOrderOfAStream) {
  Host host;
  host.send(host.product(1, 10));
  host.send(host.product(2, 20));
  host.send(host.product(3, 30));
  host.serve();
  EXPECT_EQ(cycles_of(host.products), (Cycles{10, 20, 30}));
  EXPECT_TRUE(host.order.empty());
  EXPECT_EQ(host.events.now(), 0u);
}

TEST(Ahead, AProductIsComputedOnce) {
  Host host;
  host.send(host.product(1, 10));
  host.serve();
  host.send(host.command(SHMGEMM_OP_FLUSH, 2));
  host.serve();
  EXPECT_EQ(cycles_of(host.products), (Cycles{10}));
  EXPECT_EQ(host.end(1), 10u);
}

TEST(Ahead, WhatTakesTimeHasEndedFirst) {
  Host host;
  auto computes = host.command(SHMGEMM_OP_COMPUTE, 1);
  computes.arg[0] = 100;
  host.send(computes);
  host.send(host.product(2, 20));  // in the same stream
  auto elsewhere = host.product(3, 30);
  elsewhere.stream = 7;
  host.send(elsewhere);
  auto after = host.product(4, 40);
  after.stream = 8;
  after.after = 1;
  host.send(after);
  host.serve();
  EXPECT_EQ(cycles_of(host.products), (Cycles{30}));
  host.send(host.command(SHMGEMM_OP_FLUSH, 5));
  host.serve();
  EXPECT_EQ(cycles_of(host.products), (Cycles{30, 20, 40}));
}

TEST(Ahead, ANoopPassesValuesOn) {
  Host host(2);
  host.send(host.product(1, 10));
  auto joint = host.command(SHMGEMM_OP_NOOP, 2);
  joint.device = 1;
  joint.stream = 1;
  joint.after = 1;
  host.send(joint);
  auto last = host.product(3, 30);
  last.device = 1;
  last.stream = 1;
  host.send(last);
  host.serve();
  EXPECT_EQ(cycles_of(host.products), (Cycles{10, 30}));
  host.send(host.command(SHMGEMM_OP_FLUSH, 4));
  host.serve();
  EXPECT_EQ(host.start(3), 10u);
}

TEST(Ahead, AFlushDoesNotWaitForWhatWasSentAfterIt) {
  Host host(2);
  host.send(host.product(1, 10));
  auto other = host.product(2, 20);
  other.device = 1;
  other.stream = 1;
  auto flush = host.command(SHMGEMM_OP_FLUSH, 3);
  flush.after = 1;
  host.send(flush);
  host.send(other);
  while (!host.port->flushing()) host.port->poll();
  EXPECT_EQ(cycles_of(host.products), (Cycles{10}));
}

TEST(Ahead, AFullTableOfThemIsServed) {
  Host host;
  for (std::uint64_t id = 1; id <= SHMGEMM_RING_SLOTS - 1; ++id) host.send(host.product(id, 1));
  host.serve();
  EXPECT_EQ(host.products.size(), SHMGEMM_RING_SLOTS - 1);
  host.send(host.command(SHMGEMM_OP_FLUSH, 1000));
  host.serve();
  EXPECT_EQ(host.end(SHMGEMM_RING_SLOTS - 1), SHMGEMM_RING_SLOTS - 1);
}

TEST(Ahead, ValuesThatCannotBeComputedFailTheirOps) {
  Host host;
  shmgemm::engine::HostPortOptions options;
  options.compute = [](const shmgemm::compute::Gemm*, std::size_t) { throw std::bad_alloc(); };
  options.log = [&](const std::string& text) { host.log.push_back(text); };
  const shmgemm::model::Hardware hardware(
      {{"model", "scalesim_os"}, {"clock", "1GHz"}, {"rows", "1"}, {"cols", "1"}});
  host.port = std::make_unique<shmgemm::engine::HostPort>(
      host.region, std::vector<shmgemm::engine::DeviceSetup>{{hardware}}, host.events, options);
  host.send(host.product(1, 10));
  host.serve();
  host.send(host.command(SHMGEMM_OP_FLUSH, 2));
  host.serve();
  EXPECT_EQ(host.status(1), unsigned{SHMGEMM_STATUS_ERROR});
  EXPECT_FALSE(host.log.empty());
}

TEST(Ahead, ProductsOfManyConnectionsStayApart) {
  Host host(1, 2);
  host.send(host.product(1, 10), 0);
  host.send(host.product(1, 20), 1);
  host.serve();
  EXPECT_EQ(cycles_of(host.products), (Cycles{10, 20}));
  host.send(host.command(SHMGEMM_OP_FLUSH, 2), 1);
  host.serve();
  // The device takes them in the order in which they came, so both have ended.
  EXPECT_EQ(host.events.now(), 30u);
}

}  // namespace
