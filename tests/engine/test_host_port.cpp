// The rules of time and the checks at the door, without processes and without wall time.
#include "engine/host_port.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "host.h"

namespace {

using shmgemm::test::Host;

shmgemm_command flushed(shmgemm_command command) {
  command.flags |= SHMGEMM_FLAG_FLUSH;
  return command;
}

TEST(HostPort, NothingEndsBeforeAFlush) {
  Host host;
  host.send(host.product(1, 10));
  host.send(host.product(2, 10));
  host.serve();
  EXPECT_TRUE(host.order.empty());
  EXPECT_EQ(host.products.size(), 2u);  // their values are there, their ends are not
  host.send(host.command(SHMGEMM_OP_FLUSH, 3));
  host.serve();
  EXPECT_EQ(host.order, (std::vector<std::uint64_t>{1, 2, 3}));
  EXPECT_EQ(host.end(1), 10u);
  EXPECT_EQ(host.start(2), 10u);
  EXPECT_EQ(host.end(2), 20u);
  EXPECT_EQ(host.end(3), 20u);
}

TEST(HostPort, AFlushStopsExactlyAtItsOp) {
  Host host(2);
  host.send(host.product(1, 100));
  auto quick = flushed(host.product(2, 10));
  quick.device = 1;
  quick.stream = 1;
  host.send(quick);
  host.serve();
  EXPECT_EQ(host.order, (std::vector<std::uint64_t>{2}));
  EXPECT_EQ(host.events.now(), 10u);
  // What is sent now arrives at the end of the last flush target.
  auto next = host.product(3, 5);
  next.device = 1;
  next.stream = 1;
  host.send(next);
  host.send(host.command(SHMGEMM_OP_FLUSH, 4));
  host.serve();
  EXPECT_EQ(host.start(3), 10u);
  EXPECT_EQ(host.end(3), 15u);
  EXPECT_EQ(host.end(1), 100u);
  EXPECT_EQ(host.end(4), 100u);
}

TEST(HostPort, FlushAfterNamesOneOp) {
  Host host(2);
  host.send(host.product(1, 10));
  auto other = host.product(2, 50);
  other.device = 1;
  other.stream = 9;
  host.send(other);
  auto flush = host.command(SHMGEMM_OP_FLUSH, 3);
  flush.after = 1;
  host.send(flush);
  host.serve();
  EXPECT_EQ(host.order, (std::vector<std::uint64_t>{1, 3}));
  EXPECT_EQ(host.end(3), 10u);
}

TEST(HostPort, FlushOfWhatHasEndedIsAnsweredAtOnce) {
  Host host;
  host.send(flushed(host.product(1, 10)));
  auto flush = host.command(SHMGEMM_OP_FLUSH, 2);
  flush.after = 1;
  host.send(flush);
  host.serve();
  EXPECT_EQ(host.end(2), 10u);
}

TEST(HostPort, StreamsOnTwoDevicesOverlapOnOneTheyQueue) {
  Host host(2);
  auto first = host.product(1, 30);
  auto second = host.product(2, 20);
  second.stream = 1;
  auto third = host.product(3, 20);
  third.stream = 2;
  third.device = 1;
  for (const auto& command : {first, second, third}) host.send(command);
  host.send(host.command(SHMGEMM_OP_FLUSH, 4));
  host.serve();
  EXPECT_EQ(host.start(1), 0u);
  EXPECT_EQ(host.start(2), 30u);
  EXPECT_EQ(host.start(3), 0u);
}

TEST(HostPort, AStreamKeepsItsOrderAcrossDevices) {
  Host host(2);
  auto second = host.product(2, 20);
  second.device = 1;
  host.send(host.product(1, 30));
  host.send(second);
  host.send(host.command(SHMGEMM_OP_FLUSH, 3));
  host.serve();
  EXPECT_EQ(host.start(2), 30u);
}

TEST(HostPort, ADependencyIsWaitedFor) {
  Host host(2);
  auto second = host.product(2, 20);
  second.device = 1;
  second.stream = 1;
  second.after = 1;
  host.send(host.product(1, 30));
  host.send(second);
  host.send(host.command(SHMGEMM_OP_FLUSH, 3));
  host.serve();
  EXPECT_EQ(host.start(2), 30u);
  EXPECT_EQ(host.end(2), 50u);
}

TEST(HostPort, ADependencyOnItselfOrOnNothingIsMet) {
  Host host;
  auto own = flushed(host.product(7, 5));
  own.after = 7;
  host.send(own);
  auto stranger = flushed(host.product(8, 5));
  stranger.after = 12345;
  host.send(stranger);
  host.serve();
  EXPECT_EQ(host.end(7), 5u);
  EXPECT_EQ(host.end(8), 10u);
}

TEST(HostPort, AnOpIsNotReleasedEarly) {
  Host host;
  auto late = host.product(1, 10);
  late.release_cycles = 1000;
  host.send(late);
  host.send(flushed(host.product(2, 10)));
  host.serve();
  EXPECT_EQ(host.start(1), 1000u);
  EXPECT_EQ(host.start(2), 1010u);
}

TEST(HostPort, EchoInfoAndReset) {
  Host host;
  auto echo = flushed(host.command(SHMGEMM_OP_ECHO, 1));
  echo.arg[0] = 11;
  echo.arg[1] = 22;
  echo.arg[2] = 33;
  host.send(echo);
  host.send(flushed(host.product(2, 10)));
  auto info = flushed(host.command(SHMGEMM_OP_GET_INFO, 3));
  info.report = static_cast<std::uint32_t>(host.region->heap_begin() / SHMGEMM_BLOCK_ALIGN);
  host.send(info);
  host.serve();
  EXPECT_EQ(host.by_id[1].busy_cycles, 11u);
  EXPECT_EQ(host.by_id[1].memory_stall_cycles, 33u);
  shmgemm_info said;
  std::memcpy(&said, host.region->base() + host.region->heap_begin(), sizeof said);
  EXPECT_EQ(host.by_id[3].report_bytes, sizeof said);
  EXPECT_EQ(said.ops, 1u);
  EXPECT_EQ(said.now_cycles, 10u);
  EXPECT_EQ(said.clock_hz, 1000000000u);
  EXPECT_STREQ(said.model, "scalesim_os");
  host.send(flushed(host.command(SHMGEMM_OP_RESET, 4)));
  info.id = 5;
  host.send(info);
  host.serve();
  std::memcpy(&said, host.region->base() + host.region->heap_begin(), sizeof said);
  EXPECT_EQ(said.ops, 0u);
  EXPECT_EQ(said.now_cycles, 10u);  // time does not go back
}

TEST(HostPort, AProductReportsHowItWent) {
  Host host;
  auto product = flushed(host.product(1, 10));
  product.report = static_cast<std::uint32_t>((host.region->heap_begin() + (1 << 20) + (3 << 18)) /
                                              SHMGEMM_BLOCK_ALIGN);
  host.send(product);
  host.serve();
  shmgemm_gemm_report report;
  std::memcpy(&report, host.region->base() + product.report * 64ull, sizeof report);
  EXPECT_GE(host.by_id[1].report_bytes, sizeof report);
  EXPECT_EQ(report.macs, 11u);
  EXPECT_EQ(report.peak_macs_per_cycle, 1u);
  const auto& done = host.by_id[1];
  EXPECT_EQ(done.busy_cycles + done.fill_drain_cycles + done.memory_stall_cycles,
            done.end_cycles - done.start_cycles);
}

TEST(HostPort, RefusesWithAReasonAndGoesOn) {
  Host host;
  auto stale = host.product(1, 1);
  stale.generation = 77;
  auto beyond = host.product(2, 1);
  beyond.c = host.region->heap_end();
  auto unserved = host.command(SHMGEMM_OP_COUNT, 3);
  auto exact = host.command(SHMGEMM_OP_ECHO, 4);
  exact.flags = SHMGEMM_FLAG_BIT_ACCURATE;
  auto foreign = host.product(5, 1);
  foreign.device = 1;
  for (const auto& command : {stale, beyond, unserved, exact, foreign}) host.send(command);
  host.send(host.product(6, 1));
  host.send(host.product(6, 1));  // outstanding already
  host.serve();
  EXPECT_EQ(host.status(1), unsigned{SHMGEMM_STATUS_BAD_GENERATION});
  EXPECT_EQ(host.status(2), unsigned{SHMGEMM_STATUS_OUT_OF_BOUNDS});
  EXPECT_EQ(host.status(3), unsigned{SHMGEMM_STATUS_BAD_OP});
  EXPECT_EQ(host.status(4), unsigned{SHMGEMM_STATUS_BAD_FLAGS});
  EXPECT_EQ(host.status(5), unsigned{SHMGEMM_STATUS_BAD_DEVICE});
  EXPECT_EQ(host.status(6), unsigned{SHMGEMM_STATUS_DUPLICATE_ID});
  host.send(host.command(SHMGEMM_OP_FLUSH, 7));
  host.serve();
  EXPECT_EQ(host.products.size(), 1u);  // nothing refused is computed
  EXPECT_EQ(host.status(6), unsigned{SHMGEMM_STATUS_OK});
}

TEST(HostPort, ABitAccurateProductIsGivenTheArraysAccumulationLength) {
  for (const auto& [model, length] : {std::pair{"scalesim_os", 12u}, {"scalesim_ws", 1u}}) {
    Host host(1, 1, {{"model", model}, {"clock", "1GHz"}, {"rows", "1"}, {"cols", "1"}});
    host.send(host.product(1, 11));
    auto exact = flushed(host.product(2, 11));
    exact.flags |= SHMGEMM_FLAG_BIT_ACCURATE;
    host.send(exact);
    host.serve();
    EXPECT_EQ(host.status(2), unsigned{SHMGEMM_STATUS_OK});
    ASSERT_EQ(host.products.size(), 2u);
    EXPECT_EQ(host.products[0].accumulation_length, 0u);
    EXPECT_EQ(host.products[1].accumulation_length, length) << model;
    EXPECT_EQ(host.end(2) - host.start(2), host.end(1) - host.start(1));
  }
}

TEST(HostPort, AClientThatNeverFlushesIsServed) {
  Host host;
  for (std::uint64_t id = 1; id <= SHMGEMM_RING_SLOTS; ++id) host.send(host.product(id, 1));
  host.serve();
  EXPECT_EQ(host.order.size(), SHMGEMM_RING_SLOTS);
  EXPECT_EQ(host.end(SHMGEMM_RING_SLOTS), SHMGEMM_RING_SLOTS);
}

TEST(HostPort, EveryQueuePairIsServedInTurn) {
  Host host(1, 3);
  for (std::uint32_t pair = 0; pair < 3; ++pair) {
    for (std::uint64_t i = 0; i < 4; ++i) {
      host.send(flushed(host.product(100 * (pair + 1) + i, 1)), pair);
    }
  }
  host.port->poll();
  while (host.port->flushing()) host.port->run_next();
  host.port->poll();
  while (host.port->flushing()) host.port->run_next();
  host.collect();
  EXPECT_EQ(host.order, (std::vector<std::uint64_t>{100, 200}));
  host.serve();
  EXPECT_EQ(host.order.size(), 12u);
}

// A stream of random commands for two devices; ids 1, 2, 3, ...
std::vector<shmgemm_command> random_stream(const Host& host, std::mt19937& random) {
  std::vector<shmgemm_command> stream;
  for (std::uint64_t id = 1; id <= 120; ++id) {
    auto command =
        random() % 8 == 0 ? host.command(SHMGEMM_OP_NOOP, id) : host.product(id, random() % 50);
    command.device = random() % 2;
    command.stream = random() % 3;
    if (random() % 4 == 0) command.after = 1 + random() % 120;
    if (random() % 6 == 0) command.release_cycles = random() % 2000;
    if (random() % 5 == 0) command.flags |= SHMGEMM_FLAG_FLUSH;
    if (random() % 12 == 0) command = host.command(SHMGEMM_OP_FLUSH, id);
    stream.push_back(command);
  }
  stream.push_back(host.command(SHMGEMM_OP_FLUSH, 121));
  return stream;
}

TEST(HostPort, OrderInTheRingAloneFixesTime) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    Host at_once(2), one_by_one(2), in_bursts(2);
    const auto stream = random_stream(at_once, random);
    for (const auto& command : stream) at_once.send(command);
    at_once.serve();
    for (const auto& command : stream) {
      one_by_one.send(command);
      one_by_one.serve();
    }
    for (std::size_t i = 0; i < stream.size(); ++i) {
      in_bursts.send(stream[i]);
      if (random() % 7 == 0) in_bursts.serve();
    }
    in_bursts.serve();
    ASSERT_EQ(at_once.by_id.size(), stream.size()) << "seed " << seed;
    for (const Host* other : {&one_by_one, &in_bursts}) {
      EXPECT_EQ(other->order, at_once.order) << "seed " << seed;
      for (const auto& [id, expected] : at_once.by_id) {
        EXPECT_EQ(other->start(id), expected.start_cycles) << "seed " << seed << " id " << id;
        EXPECT_EQ(other->end(id), expected.end_cycles) << "seed " << seed << " id " << id;
      }
    }
  }
}

// The rule of the design, by hand: start = max(arrival, after, stream, device, release).
TEST(HostPort, StartsWhenTheRuleSays) {
  for (unsigned seed = 100; seed < 120; ++seed) {
    std::mt19937 random(seed);
    Host host(2);
    const auto stream = random_stream(host, random);
    for (const auto& command : stream) host.send(command);
    host.serve();
    std::map<std::uint64_t, std::uint64_t> end;
    std::uint64_t device_free[2] = {0, 0}, arrival = 0, all = 0;
    std::map<std::uint32_t, std::uint64_t> stream_end;
    for (const auto& command : stream) {
      std::uint64_t start = arrival;
      if (command.op == SHMGEMM_OP_FLUSH) {
        start = std::max(arrival, all);
        end[command.id] = arrival = start;
      } else {
        start = std::max({start, stream_end[command.stream], device_free[command.device],
                          std::uint64_t{command.release_cycles}});
        if (command.after != 0 && end.count(command.after) != 0) {
          start = std::max(start, end[command.after]);
        }
        const std::uint64_t cycles = command.op == SHMGEMM_OP_GEMM ? command.k - 1 : 0;
        end[command.id] = device_free[command.device] = stream_end[command.stream] = start + cycles;
        all = std::max(all, start + cycles);
        if ((command.flags & SHMGEMM_FLAG_FLUSH) != 0) arrival = start + cycles;
      }
      EXPECT_EQ(host.start(command.id), start) << "seed " << seed << " id " << command.id;
      EXPECT_EQ(host.end(command.id), end[command.id]) << "seed " << seed << " id " << command.id;
    }
  }
}

// --- what the SST element adds ------------------------------------------------------------------

namespace engine = shmgemm::engine;
namespace model = shmgemm::model;

class Noted final : public engine::DeviceObserver {
 public:
  void queued(std::size_t depth) override { depths.push_back(depth); }
  void ended(const engine::Op& op, shmgemm_status status, const model::GemmTiming&) override {
    endings.emplace_back(op.command.id, status);
  }
  void rejected() override { ++rejects; }
  void retired() override { ++retirements; }

  std::vector<std::size_t> depths;
  std::vector<std::pair<std::uint64_t, shmgemm_status>> endings;
  int rejects = 0, retirements = 0;
};

model::Hardware one_pe(const std::string& clock = "1GHz") {
  return model::Hardware(
      {{"model", "scalesim_os"}, {"clock", clock}, {"rows", "1"}, {"cols", "1"}});
}

TEST(HostPort, AnObserverIsToldWhatBecomesOfCommands) {
  Host host;  // for its region and rings; the port is another one
  Noted noted;
  engine::HostPortOptions options;
  options.compute = [](const shmgemm::compute::Gemm*, std::size_t) {};
  options.last_cycle = 1000;
  host.port = std::make_unique<engine::HostPort>(
      host.region, std::vector<engine::DeviceSetup>{{one_pe(), nullptr, &noted}}, host.events,
      options);
  auto late = host.product(3, 10);
  late.release_cycles = 1001;
  auto too_long = host.product(4, 2000);
  for (const auto& command : {host.product(1, 10), host.product(2, 10), late, too_long}) {
    host.send(command);
  }
  host.send(host.command(SHMGEMM_OP_FLUSH, 5));
  host.serve();
  EXPECT_EQ(noted.depths, (std::vector<std::size_t>{1, 2, 3}));
  EXPECT_EQ(noted.endings,
            (std::vector<std::pair<std::uint64_t, shmgemm_status>>{
                {1, SHMGEMM_STATUS_OK}, {2, SHMGEMM_STATUS_OK}, {4, SHMGEMM_STATUS_ERROR}}));
  EXPECT_EQ(noted.rejects, 1);
  EXPECT_EQ(noted.retirements, 1);
  EXPECT_EQ(host.status(3), SHMGEMM_STATUS_ERROR);
  EXPECT_EQ(host.events.now(), 20u);
}

TEST(HostPort, WithoutARegionItServesWhatIsEnqueued) {
  model::EventQueue events;
  engine::OpTable table;
  std::vector<std::pair<std::uint64_t, model::Cycle>> ended;
  engine::HostPortOptions options;
  options.returned = [&](engine::Op* op, shmgemm_status, const model::GemmTiming& timing) {
    ended.emplace_back(op->command.id, timing.total());
    table.remove(op);
  };
  engine::HostPort port(nullptr, std::vector<engine::DeviceSetup>(2, {one_pe()}), events, options);
  Host host;  // makes commands
  for (const std::uint64_t id : {1, 2, 3}) {
    auto command = host.product(id, 10 * static_cast<std::uint32_t>(id));
    command.stream = static_cast<std::uint32_t>(id);
    command.device = id == 3 ? 1 : 0;
    port.enqueue(table.add(command, nullptr));
  }
  EXPECT_TRUE(port.busy());
  EXPECT_FALSE(port.poll());
  while (!events.empty()) port.run_next();
  EXPECT_FALSE(port.busy());
  EXPECT_EQ(ended,
            (std::vector<std::pair<std::uint64_t, model::Cycle>>{{1, 10}, {3, 30}, {2, 20}}));
  EXPECT_EQ(events.now(), 30u);
}

TEST(HostPort, TheDevicesOfOneHostHaveOneClock) {
  Host host;
  const auto make = [&host](std::vector<engine::DeviceSetup> setups) {
    engine::HostPort(host.region, setups, host.events, {});
  };
  EXPECT_THROW(make({}), std::invalid_argument);
  EXPECT_THROW(make({{one_pe()}, {one_pe("940MHz")}}), std::invalid_argument);
  EXPECT_NO_THROW(make({{one_pe()}, {one_pe()}}));
}

// Each turn ends with a command that flushes, however many came before it.
TEST(HostPort, TwoThatFlushTakeTurns) {
  constexpr std::uint64_t kOps = 200;
  constexpr std::uint64_t kBurst = 50;
  Host host(1, 2);
  std::uint64_t burst_id = 1000;
  for (std::uint64_t id = 1; id <= kOps; ++id) {
    if (id % 4 == 1) {  // as much as the burst's ring holds
      for (std::uint64_t i = 1; i <= 4 * kBurst; ++i) {
        const auto one = host.product(++burst_id, 3);
        host.send(i % kBurst == 0 ? flushed(one) : one, 1);
      }
    }
    host.send(flushed(host.product(id, 3)));
    if (id % 4 == 0) host.serve();
  }
  std::uint64_t in_between = 0;
  for (const std::uint64_t id : host.order) in_between += id < 1000;
  EXPECT_EQ(in_between, kOps);
  EXPECT_EQ(host.order.size(), kOps + kOps * kBurst);
  for (std::uint64_t id = 1; id < kOps; ++id) {
    const std::uint64_t gap = host.start(id + 1) - host.end(id);
    EXPECT_LE(gap, 3 * kBurst) << id;  // at most one burst
  }
}

// What is refused or answered at once costs a turn as well.
TEST(HostPort, WhoNeverStopsDoesNotKeepTheOthersWaiting) {
  for (const bool refused : {false, true}) {
    class Endless final : public shmgemm::engine::Connection {
     public:
      explicit Endless(shmgemm_command command) : command_(command) {}
      bool ready() const override { return true; }
      bool take(shmgemm::engine::Arrived& arrived) override {
        arrived.command = command_;
        arrived.command.id = ++taken;
        return true;
      }
      void answer(std::uint32_t, const shmgemm_completion&) override { ++answered; }
      std::uint64_t taken = 0, answered = 0;

     private:
      shmgemm_command command_;
    };
    Host host;
    auto command = host.command(refused ? SHMGEMM_OP_NOOP : SHMGEMM_OP_FLUSH, 1);
    if (refused) command.generation += 1;
    const auto endless = std::make_shared<Endless>(command);
    host.port->connect(endless);
    for (std::uint64_t id = 1; id <= 300; ++id) {
      host.send(flushed(host.product(id, 2)));
      host.port->poll();
      while (host.port->flushing()) host.port->run_next();
      host.port->poll();
      while (host.port->flushing()) host.port->run_next();
      host.collect();
      ASSERT_TRUE(host.has(id));
    }
    EXPECT_EQ(endless->answered, endless->taken);
    EXPECT_GE(endless->taken, 300u);
  }
}

}  // namespace
