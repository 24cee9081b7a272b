// A client that flips bits, against the real engine in a process of its own. Whatever the records
// say, the engine lives, answers each one exactly once with the status the validator gives, and
// changes no byte of the heap that an accepted command does not name. Under AddressSanitizer for 60
// seconds.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "abi/shmgemm_validate.h"
#include "client/engine_process.h"
#include "region/region.h"
#include "region/ring.h"
#include "region/waiter.h"

namespace shmgemm {
namespace {

using std::chrono::steady_clock;

#if defined(__SANITIZE_ADDRESS__)
constexpr std::chrono::seconds kDuration{60};
#else
constexpr std::chrono::seconds kDuration{3};
#endif
constexpr std::chrono::seconds kAnswerLimit{40};
constexpr std::uint32_t kPairs = 2;
constexpr std::uint32_t kDevices = 2;
constexpr unsigned kBatchesPerEngine = 300;
constexpr std::uint64_t kFlushIds = 0xa5a5a5a5a5a50000;

std::string text_of(const shmgemm_command& command) {
  std::string text = "words";
  std::uint32_t words[sizeof command / 4];
  std::memcpy(words, &command, sizeof command);
  for (std::uint32_t word : words) text += " " + std::to_string(word);
  return text;
}

class HostileClient {
 public:
  explicit HostileClient(std::uint64_t seed)
      : random_(seed), region_(region::Region::create(SHMGEMM_MIN_REGION_BYTES, kPairs)) {
    options_.engine_path = SHMGEMM_ENGINE_PATH;
    options_.devices = kDevices;
    options_.threads = 2;
    options_.parameters = {{"model", "scalesim_ws"}, {"rows", "8"}, {"cols", "8"}};
    shadow_.resize(heap_bytes());
    for (std::byte& byte : shadow_) byte = static_cast<std::byte>(random_());
    std::memcpy(heap(), shadow_.data(), heap_bytes());
  }

  void start_engine() {
    region_->begin_generation();
    generation_ = region_->generation();
    pairs_.clear();
    for (std::uint32_t i = 0; i < kPairs; ++i) pairs_.emplace_back(*region_, i);
    time_is_over_ = false;
    engine_ = std::make_unique<client::EngineProcess>(options_, *region_);
    engine_->await_ready();
  }

  // The sanitizer's verdict, leaks included, is the exit status.
  void stop_engine() {
    engine_->ask_to_stop();
    ASSERT_TRUE(engine_->wait_dead(std::chrono::seconds(10)));
    ASSERT_EQ(engine_->cause_of_death(), "exit status 0");
    engine_.reset();
  }

  void run_batch() {
    writable_.clear();
    for (Pair& pair : pairs_) submit_batch(pair);
    scribble_over_header();
    for (Pair& pair : pairs_) {
      ASSERT_NO_FATAL_FAILURE(collect(pair));
    }
    ASSERT_NO_FATAL_FAILURE(check_heap());
  }

  // A flipped release time can bring simulated time to its end, where all is refused.
  bool time_is_over() const { return time_is_over_; }
  std::uint64_t records() const { return records_; }
  std::uint64_t accepted() const { return accepted_; }

 private:
  struct Pair {
    Pair(region::Region& region, std::uint32_t index)
        : commands(region.queue_pair(index)->commands, SHMGEMM_RING_SLOTS),
          completions(region.queue_pair(index)->completions, SHMGEMM_RING_SLOTS) {}
    region::RingProducer<shmgemm_command> commands;
    region::RingConsumer<shmgemm_completion> completions;
    std::unordered_map<std::uint64_t, std::vector<shmgemm_command>> unanswered;  // by id
    std::uint32_t in_flight = 0;
  };

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  std::byte* heap() const { return region_->base() + region_->heap_begin(); }
  std::uint64_t heap_bytes() const { return region_->heap_end() - region_->heap_begin(); }
  shmgemm_limits limits() const {
    return {region_->heap_begin(), region_->heap_end(), generation_, kDevices};
  }
  std::uint64_t place() { return region_->heap_begin() + below(heap_bytes() / 64) * 64; }

  shmgemm_command good_gemm() {
    static constexpr std::uint8_t kTypes[][2] = {{SHMGEMM_DTYPE_FLOAT32, SHMGEMM_DTYPE_FLOAT32},
                                                 {SHMGEMM_DTYPE_FLOAT16, SHMGEMM_DTYPE_FLOAT32},
                                                 {SHMGEMM_DTYPE_BFLOAT16, SHMGEMM_DTYPE_BFLOAT16},
                                                 {SHMGEMM_DTYPE_INT8, SHMGEMM_DTYPE_INT32}};
    const auto& types = kTypes[below(4)];
    shmgemm_command command{};
    command.op = SHMGEMM_OP_GEMM;
    command.dtype_in = types[0];
    command.dtype_out = types[1];
    command.flags = static_cast<std::uint32_t>(below(SHMGEMM_FLAG_FLUSH * 2));
    command.m = 1 + static_cast<std::uint32_t>(below(24));
    command.n = 1 + static_cast<std::uint32_t>(below(24));
    command.k = 1 + static_cast<std::uint32_t>(below(24));
    command.batch = 1 + static_cast<std::uint32_t>(below(3));
    command.lda = command.flags & SHMGEMM_FLAG_TRANSPOSE_A ? command.m : command.k;
    command.ldb = command.flags & SHMGEMM_FLAG_TRANSPOSE_B ? command.k : command.n;
    command.ldc = command.n;
    command.stride_a = std::uint64_t{command.m} * command.k;
    command.stride_b = below(2) * command.k * command.n;
    command.stride_c = std::uint64_t{command.m} * command.n;
    command.a = place();
    command.b = place();
    command.c = place();
    command.bias = command.flags & SHMGEMM_FLAG_BIAS ? place() : 0;
    command.report = below(2) ? static_cast<std::uint32_t>(place() / 64) : 0;
    return command;
  }

  shmgemm_command good_command() {
    static constexpr std::uint8_t kOps[] = {SHMGEMM_OP_NOOP, SHMGEMM_OP_ECHO, SHMGEMM_OP_RESET,
                                            SHMGEMM_OP_GET_INFO, SHMGEMM_OP_FLUSH};
    shmgemm_command command = below(3) ? good_gemm() : shmgemm_command{};
    if (command.op != SHMGEMM_OP_GEMM) {
      command.op = kOps[below(5)];
      if (command.op == SHMGEMM_OP_ECHO) command.arg[0] = random_();
      if (command.op == SHMGEMM_OP_GET_INFO) {
        command.report = static_cast<std::uint32_t>(place() / 64);
      }
    }
    command.id = ++ids_;
    command.generation = generation_;
    command.device = static_cast<std::uint8_t>(below(kDevices));
    command.stream = static_cast<std::uint32_t>(below(4));
    if (below(4) == 0) command.after = static_cast<std::uint32_t>(ids_ - below(20));
    if (below(8) == 0) command.release_cycles = below(100'000);
    return command;
  }

  void flip(shmgemm_command& command) {
    auto* bytes = reinterpret_cast<unsigned char*>(&command);
    const std::uint64_t kind = below(8);
    if (kind == 0) {  // nothing of it is meant
      for (std::size_t i = 0; i < sizeof command; ++i) {
        bytes[i] = static_cast<unsigned char>(random_());
      }
    } else if (kind < 5) {
      for (std::uint64_t flips = 1 + below(3); flips > 0; --flips) {
        bytes[below(sizeof command)] ^= static_cast<unsigned char>(1u << below(8));
      }
    } else if (kind == 5) {  // a word at an edge
      static constexpr std::uint32_t kEdges[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff};
      std::memcpy(bytes + below(sizeof command / 4) * 4, &kEdges[below(5)], 4);
    }
  }

  void submit(Pair& pair, const shmgemm_command& command) {
    const shmgemm_limits given = limits();
    if (shmgemm_validate_command(&command, &given) == SHMGEMM_STATUS_OK) permit(command);
    pair.unanswered[command.id].push_back(command);
    ++pair.in_flight;
    ++records_;
    pair.commands.publish(command);
    region::wake_if_sleeping(region_->engine());
  }

  void submit_batch(Pair& pair) {
    for (std::uint64_t count = below(SHMGEMM_RING_SLOTS - 1); count > 0; --count) {
      shmgemm_command command = good_command();
      flip(command);
      submit(pair, command);
    }
    // An id far from any flipped one: refused as a duplicate, it would leave the others waiting.
    shmgemm_command flush{};
    flush.id = kFlushIds + (++flushes_ & 0xffff);
    flush.generation = generation_;
    flush.op = SHMGEMM_OP_FLUSH;
    submit(pair, flush);
  }

  // What an accepted command may write, as the ABI says: its C, its report, what it reads into.
  void permit(const shmgemm_command& command) {
    const auto add = [this](std::uint64_t offset, std::uint64_t bytes) {
      writable_.emplace_back(offset - region_->heap_begin(), bytes);
    };
    if (command.op == SHMGEMM_OP_GEMM) {
      const std::uint64_t element = shmgemm_dtype_bytes(command.dtype_out);
      for (std::uint32_t entry = 0; entry < command.batch; ++entry) {
        for (std::uint32_t row = 0; row < command.m; ++row) {
          const std::uint64_t at = entry * command.stride_c + std::uint64_t{row} * command.ldc;
          add(command.c + at * element, command.n * element);
        }
      }
    }
    if (command.op == SHMGEMM_OP_READ) add(command.arg[2], command.arg[1]);
    if (command.report != 0) add(std::uint64_t{command.report} * 64, SHMGEMM_REPORT_BYTES);
  }

  // What the engine copied when it started must not matter any more.
  void scribble_over_header() {
    shmgemm_header* header = region_->header();
    auto* bytes = reinterpret_cast<unsigned char*>(header);
    for (int i = 0; i < 8; ++i) {
      bytes[below(offsetof(shmgemm_header, peers))] ^= static_cast<unsigned char>(1u << below(8));
    }
    header->peers[0].state = static_cast<std::uint32_t>(random_());
    for (std::uint32_t i = 0; i < kPairs; ++i) region_->client(i)->heartbeat = random_();
  }

  void collect(Pair& pair) {
    const auto end = steady_clock::now() + kAnswerLimit;
    shmgemm_completion completion;
    while (pair.in_flight > 0) {
      if (pair.completions.poll(completion)) {
        ASSERT_NO_FATAL_FAILURE(check(pair, completion));
        continue;
      }
      ASSERT_FALSE(engine_->wait_dead(std::chrono::milliseconds(0)))
          << "the engine died: " << engine_->cause_of_death();
      ASSERT_LT(steady_clock::now().time_since_epoch().count(), end.time_since_epoch().count())
          << pair.in_flight << " records were never answered, one of them "
          << text_of(pair.unanswered.begin()->second.front());
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    ASSERT_FALSE(pair.completions.poll(completion)) << "one answer too many";
  }

  // What is in range depends on the device's own memory and settings.
  static bool depends_on_device(const shmgemm_command& command) {
    return command.op == SHMGEMM_OP_COMPUTE || command.op == SHMGEMM_OP_CONFIGURE ||
           command.op == SHMGEMM_OP_READ || command.op == SHMGEMM_OP_WRITE;
  }

  void check(Pair& pair, const shmgemm_completion& completion) {
    const auto found = pair.unanswered.find(completion.id);
    ASSERT_NE(found, pair.unanswered.end()) << "answer to an id that was not asked";
    const shmgemm_limits given = limits();
    const auto status = static_cast<shmgemm_status>(completion.status);
    // Records that share an id (flipped) are answered in no order the client could tell: an answer
    // goes to the one of them that could get the fewest others.
    constexpr int kNone = 3;
    const auto rank = [&](const shmgemm_command& command) {
      const shmgemm_status expected = shmgemm_validate_command(&command, &given);
      if (expected != SHMGEMM_STATUS_OK) return status == expected ? 0 : kNone;
      const bool depends = depends_on_device(command);
      const bool any = status == SHMGEMM_STATUS_OK || status == SHMGEMM_STATUS_DUPLICATE_ID ||
                       status == SHMGEMM_STATUS_BUSY || status == SHMGEMM_STATUS_UNSUPPORTED ||
                       status == SHMGEMM_STATUS_ERROR;
      if (any) return depends ? 2 : 1;
      const bool of_device =
          status == SHMGEMM_STATUS_BAD_ARGUMENT || status == SHMGEMM_STATUS_OUT_OF_BOUNDS;
      return depends && of_device ? 2 : kNone;
    };
    std::vector<shmgemm_command>& asked = found->second;
    const auto which =
        std::min_element(asked.begin(), asked.end(),
                         [&](const auto& x, const auto& y) { return rank(x) < rank(y); });
    ASSERT_LT(rank(*which), kNone) << "id " << completion.id << ": " << shmgemm_status_text(status);
    if (completion.id != 0) {
      ASSERT_EQ(shmgemm_validate_completion(&completion, &given), SHMGEMM_STATUS_OK);
    }
    if (status == SHMGEMM_STATUS_OK) ++accepted_;
    if (completion.end_cycles > std::uint64_t{1} << 62) time_is_over_ = true;
    asked.erase(which);
    if (asked.empty()) pair.unanswered.erase(found);
    --pair.in_flight;
  }

  void check_heap() {
    for (const auto& [offset, bytes] : writable_) {
      std::memcpy(shadow_.data() + offset, heap() + offset, bytes);
    }
    ASSERT_EQ(std::memcmp(shadow_.data(), heap(), heap_bytes()), 0)
        << "a byte changed that no accepted command names";
  }

  std::mt19937_64 random_;
  std::shared_ptr<region::Region> region_;
  std::uint32_t generation_ = 0;
  SessionOptions options_;
  std::vector<Pair> pairs_;
  std::unique_ptr<client::EngineProcess> engine_;
  std::vector<std::byte> shadow_;  // what the heap must hold
  std::vector<std::pair<std::uint64_t, std::uint64_t>> writable_;
  std::uint64_t ids_ = 0;
  std::uint64_t flushes_ = 0;
  std::uint64_t records_ = 0;
  std::uint64_t accepted_ = 0;
  bool time_is_over_ = false;
};

TEST(HostileClient, EngineAnswersEveryRecordOnceAndLives) {
  const char* given = std::getenv("SHMGEMM_SEED");
  const std::uint64_t seed = given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  SCOPED_TRACE("SHMGEMM_SEED=" + std::to_string(seed));
  const auto end = steady_clock::now() + kDuration;
  HostileClient client(seed);
  while (steady_clock::now() < end) {
    ASSERT_NO_FATAL_FAILURE(client.start_engine());
    for (unsigned i = 0;
         i < kBatchesPerEngine && !client.time_is_over() && steady_clock::now() < end; ++i) {
      ASSERT_NO_FATAL_FAILURE(client.run_batch());
    }
    ASSERT_NO_FATAL_FAILURE(client.stop_engine());
  }
  std::printf("%llu records, %llu of them accepted\n",
              static_cast<unsigned long long>(client.records()),
              static_cast<unsigned long long>(client.accepted()));
  EXPECT_GT(client.accepted(), client.records() / 20) << "too few are good to test anything";
  EXPECT_LT(client.accepted(), client.records()) << "none was bad";
}

}  // namespace
}  // namespace shmgemm
