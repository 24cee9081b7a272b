// An engine that flips bits, against the client's channel: answers corrupted, doubled, invented or
// never sent, while several threads submit and wait. Every call ends in a result or in an error,
// what is wrong in a way that can be told is told, and no slot and no block is lost over many
// generations. Both sides are threads of one process, so that the sanitizers see them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "client/channel.h"
#include "direct.h"

namespace shmgemm {
namespace {

using namespace std::chrono_literals;
using client::Channel;
using client::Failure;
using client::Heap;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::chrono::seconds kDuration{10};
#else
constexpr std::chrono::seconds kDuration{2};
#endif

class FlippingEngine {
 public:
  FlippingEngine(const std::shared_ptr<Heap>& heap, std::uint64_t seed, bool honest)
      : region_(region::Region::attach(dup(heap->region().fd()))),
        commands_(region_->queue_pair(0)->commands, SHMGEMM_RING_SLOTS),
        completions_(region_->queue_pair(0)->completions, SHMGEMM_RING_SLOTS),
        random_(seed),
        honest_(honest),
        thread_([this] { serve(); }) {}
  ~FlippingEngine() {
    stop_.store(true);
    thread_.join();
  }

  bool dead() const { return dead_.load(); }
  // Ids whose answers may be wrong in a way that nobody can tell.
  std::set<std::uint64_t> touched() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return touched_;
  }

 private:
  void serve() {
    shmgemm_command command;
    while (!stop_.load()) {
      if (!commands_.poll(command)) {
        std::this_thread::sleep_for(20us);
        continue;
      }
      shmgemm_completion completion{};
      completion.id = command.id;
      completion.generation = command.generation;
      completion.busy_cycles = command.arg[0];
      if (honest_ || random_() % 64 != 0) {
        publish(completion);
      } else if (!misbehave(completion)) {
        dead_.store(true);
        return;
      }
    }
  }

  // False: it died over it.
  bool misbehave(shmgemm_completion completion) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      touched_.insert(completion.id);
    }
    auto* bytes = reinterpret_cast<unsigned char*>(&completion);
    switch (random_() % 8) {
      case 0:
        return false;
      case 4:
        return true;  // no answer
      case 1:
        publish(completion);
        publish(completion);
        return true;
      case 2:
        completion.id += SHMGEMM_RING_SLOTS * (random_() % 5);
        break;
      case 3:
        for (std::size_t i = 0; i < sizeof completion; ++i) {
          bytes[i] = static_cast<unsigned char>(random_());
        }
        break;
      default:
        bytes[random_() % sizeof completion] ^= static_cast<unsigned char>(1u << random_() % 8);
        break;
    }
    {  // a flipped id may be the id of another op in flight
      const std::lock_guard<std::mutex> lock(mutex_);
      touched_.insert(completion.id);
    }
    publish(completion);
    return true;
  }

  void publish(const shmgemm_completion& completion) {
    completions_.publish(completion);
    region::wake_if_sleeping(region_->client(0));
  }

  std::shared_ptr<region::Region> region_;
  region::RingConsumer<shmgemm_command> commands_;
  region::RingProducer<shmgemm_completion> completions_;
  std::mt19937_64 random_;
  bool honest_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> dead_{false};
  mutable std::mutex mutex_;
  std::set<std::uint64_t> touched_;
  std::thread thread_;
};

struct Counts {
  std::atomic<std::uint64_t> results{0}, lost{0}, nonsense{0}, late{0};
};

// Submits and waits until told to stop; what it was told wrong goes to `wrong`, by id.
void call(Heap& heap, Channel& channel, std::uint64_t seed, const std::atomic<bool>& stop,
          Counts& counts, std::set<std::uint64_t>& wrong) {
  std::mt19937_64 random(seed);
  while (!stop.load()) {
    if (channel.failed()) {
      std::this_thread::sleep_for(100us);
      continue;
    }
    const auto block = heap.allocate(SHMGEMM_REPORT_BYTES);
    shmgemm_command command{};
    command.op = SHMGEMM_OP_GET_INFO;
    command.flags = SHMGEMM_FLAG_FLUSH;
    command.report = static_cast<std::uint32_t>(block->offset() / SHMGEMM_BLOCK_ALIGN);
    command.arg[0] = random();
    try {
      // The limit stands for the monitor's patience: an answer may never come.
      const auto deadline = region::Clock::now() + 300ms;
      const std::uint64_t id = channel.submit(command, random() % 2 == 0, deadline);
      const auto completion = channel.wait(id, deadline, region::Expect::kShort);
      ++counts.results;
      if (completion.busy_cycles != command.arg[0]) wrong.insert(id);
    } catch (const DeviceLost&) {
      ++counts.lost;
    } catch (const ProtocolError&) {
      ++counts.nonsense;
    } catch (const DeviceTimeout&) {
      ++counts.late;
    }
  }
}

TEST(HostileEngine, EveryCallEndsAndNothingIsLost) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  constexpr std::size_t kCallers = 4;
  const auto heap = std::make_shared<Heap>(SHMGEMM_MIN_REGION_BYTES);
  Channel channel(heap);
  std::atomic<bool> killed{false}, stop{false};
  channel.set_on_nonsense([&] { killed.store(true); });
  begin_direct(*heap, channel);

  Counts counts;
  std::set<std::uint64_t> touched;
  std::vector<std::set<std::uint64_t>> wrong(kCallers);
  std::vector<std::thread> callers;
  for (std::size_t i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] { call(*heap, channel, seed + i, stop, counts, wrong[i]); });
  }
  const auto end = region::Clock::now() + kDuration;
  std::uint64_t generations = 0;
  while (region::Clock::now() < end) {
    auto engine = std::make_unique<FlippingEngine>(heap, seed + ++generations, false);
    while (!killed.load() && !engine->dead() && region::Clock::now() < end) {
      std::this_thread::sleep_for(200us);
      channel.reap_abandoned();
    }
    touched.merge(engine->touched());
    engine.reset();  // proved dead
    channel.fail(Failure::kLost, "the engine is gone");
    killed.store(false);
    begin_direct(*heap, channel);
  }
  stop.store(true);
  channel.fail(Failure::kLost, "the end");
  for (std::thread& caller : callers) caller.join();

  EXPECT_GT(generations, 20u);
  EXPECT_GT(counts.results.load(), 100u);
  EXPECT_GT(counts.lost.load(), 0u);
  EXPECT_GT(counts.nonsense.load(), 0u);
  std::printf("%llu generations, %llu results, %llu lost, %llu nonsense, %llu late\n",
              static_cast<unsigned long long>(generations),
              static_cast<unsigned long long>(counts.results.load()),
              static_cast<unsigned long long>(counts.lost.load()),
              static_cast<unsigned long long>(counts.nonsense.load()),
              static_cast<unsigned long long>(counts.late.load()));
  for (const auto& ids : wrong) {
    for (std::uint64_t id : ids) EXPECT_EQ(touched.count(id), 1u) << "a wrong result for " << id;
  }
  EXPECT_EQ(heap->allocator().used_bytes(), 0u) << "no block is held for ever";

  begin_direct(*heap, channel);
  FlippingEngine honest(heap, 0, true);
  std::vector<std::uint64_t> ids;
  for (std::uint32_t i = 0; i < SHMGEMM_RING_SLOTS - 1; ++i) {
    ids.push_back(channel.submit(shmgemm_command{}, false, Channel::kNoDeadline));
  }
  for (std::uint64_t id : ids) channel.wait(id, region::Clock::now() + 10s, region::Expect::kShort);
}

}  // namespace
}  // namespace shmgemm
