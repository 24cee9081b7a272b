// Stress of everything that is asynchronous: many threads send ops of all kinds to an engine that
// is killed now and then, wait, cancel and drop. Every op ends in a result, cancelled, or lost with
// its engine; nothing hangs; at the end the heap, the descriptors and the processes are back.
//
//   shmgemm-stress ENGINE [--ops N] [--threads N] [--kills N] [--processes N] [--seed N]
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "worker.h"

namespace {

using namespace stress;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kHangs{60};
constexpr std::size_t kMostOpen = 128;  // futures, of all threads: half the slots of a queue pair

struct Options {
  std::string engine;
  std::uint64_t ops = 1'000'000, threads = 4, kills = 20, processes = 1, seed = 42;
};

std::uint64_t number_of(const std::string& word, const char* text) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long number = std::strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || errno != 0) {
    give_up(word + ": got '" + text + "'; expected a number");
  }
  return number;
}

Options options_of(int count, char** words) {
  Options options;
  if (count < 2) give_up("got no engine; expected the path of shmgemm-engine first");
  options.engine = words[1];
  const std::pair<std::string, std::uint64_t*> known[] = {{"--ops", &options.ops},
                                                          {"--threads", &options.threads},
                                                          {"--kills", &options.kills},
                                                          {"--processes", &options.processes},
                                                          {"--seed", &options.seed}};
  for (int i = 2; i < count; i += 2) {
    const auto* found = std::find_if(std::begin(known), std::end(known),
                                     [&](const auto& one) { return one.first == words[i]; });
    if (found == std::end(known) || i + 1 == count) {
      give_up(std::string("got '") + words[i] +
              "'; expected --ops, --threads, --kills, --processes or --seed, each with a number");
    }
    *found->second = number_of(words[i], words[i + 1]);
  }
  if (options.threads == 0 || options.threads > kMostOpen) {
    give_up("--threads: got " + std::to_string(options.threads) + "; expected 1 to " +
            std::to_string(kMostOpen));
  }
  return options;
}

std::string grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
  return text;
}

std::shared_ptr<shmgemm::Session> open_session(const Options& options) {
  shmgemm::SessionOptions session;
  session.engine_path = options.engine;
  session.region_bytes = 64 << 20;
  session.devices = kDevices;
  session.processes = static_cast<std::uint32_t>(options.processes);
  session.parameters = {{"model", "scalesim_ws"}, {"rows", "8"}, {"cols", "4"}, {"clock", "1GHz"}};
  return shmgemm::Session::open(session);
}

// A thread that does something every so often until it goes.
class Every {
 public:
  template <typename Function>
  Every(std::chrono::microseconds period, Function function)
      : thread_([this, period, function]() mutable {
          std::unique_lock<std::mutex> lock(mutex_);
          while (!ends_.wait_for(lock, period, [this] { return over_; })) function();
        }) {}
  ~Every() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
    }
    ends_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ends_;
  bool over_ = false;
  std::thread thread_;
};

// Gives up where no thread has done anything for a minute.
class Watchdog {
 public:
  explicit Watchdog(const Shared& shared) : shared_(shared) {}
  void operator()() {
    const std::uint64_t steps = shared_.steps.load();
    if (steps != last_steps_) since_ = Clock::now();
    last_steps_ = steps;
    if (Clock::now() - since_ < kHangs) return;
    give_up("it hangs: no progress for " + std::to_string(kHangs.count()) + " s after " +
            grouped(shared_.budget.taken()) + " ops");
  }

 private:
  const Shared& shared_;
  std::uint64_t last_steps_ = 0;
  Clock::time_point since_ = Clock::now();
};

// Kills engines, each once, when random numbers of ops were sent.
class Killer {
 public:
  Killer(const Options& options, shmgemm::Session& session, const Shared& shared,
         std::uint64_t& kills)
      : session_(session), shared_(shared), random_(options.seed), kills_(kills) {
    for (std::uint64_t i = 0; i < options.kills; ++i) at_.push_back(below(random_, options.ops));
    std::sort(at_.rbegin(), at_.rend());
  }
  void operator()() {
    if (at_.empty() || shared_.budget.taken() < at_.back()) return;
    const std::vector<int> pids = session_.engine_pids();
    const int pid = pids[below(random_, pids.size())];
    if (pid == 0 || std::find(killed_.begin(), killed_.end(), pid) != killed_.end()) return;
    if (kill(pid, SIGKILL) != 0) give_up(std::string("kill: ") + std::strerror(errno));
    killed_.push_back(pid);
    at_.pop_back();
    ++kills_;
  }

 private:
  shmgemm::Session& session_;
  const Shared& shared_;
  Random random_;
  std::uint64_t& kills_;
  std::vector<std::uint64_t> at_;  // the next one last
  std::vector<int> killed_;
};

Counts work(const Options& options, shmgemm::Session& session, Shared& shared) {
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < options.threads; ++i) {
    workers.push_back(std::make_unique<Worker>(session, shared, options.seed * 1000 + i,
                                               kMostOpen / options.threads));
    threads.emplace_back([worker = workers.back().get()] { worker->run(); });
  }
  Counts counts;
  for (std::uint64_t i = 0; i < options.threads; ++i) {
    threads[i].join();
    counts.add(workers[i]->counts());
  }
  return counts;
}

// Until every op that was dropped has been answered, or was lost; a new engine is there then.
void flush(shmgemm::Session& session) {
  for (int tries = 0;; ++tries) {
    try {
      session.flush();
      return;
    } catch (const shmgemm::DeviceLost&) {
      if (tries == 10) throw;
    }
  }
}

void expect_equal(const char* what, std::uint64_t got, std::uint64_t expected) {
  if (got == expected) return;
  give_up(std::string(what) + ": got " + grouped(got) + "; expected " + grouped(expected));
}

std::uint64_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::uint64_t>(std::distance(begin(all), end(all)));
}

void run(const Options& options) {
  const Clock::time_point start = Clock::now();
  const std::uint64_t descriptors = open_descriptors();
  auto session = open_session(options);
  const std::uint64_t held_before = session->stats().heap_used_bytes;
  Shared shared(options.ops);
  Counts counts;
  std::uint64_t kills = 0;
  {
    const Every watchdog(std::chrono::seconds(1), Watchdog(shared));
    {
      const Every killer(std::chrono::microseconds(500), Killer(options, *session, shared, kills));
      counts = work(options, *session, shared);
    }
    shared.board.clear();
    flush(*session);
  }
  const shmgemm::Stats stats = session->stats();
  expect_equal("ops that ended", counts.ops(), options.ops);
  expect_equal("bytes held in the heap", stats.heap_used_bytes, held_before);
  expect_equal("ops refused", stats.rejects, 0);
  expect_equal("engines started", stats.engine_starts, options.processes + kills);
  session->close();
  session.reset();
  expect_equal("open descriptors", open_descriptors(), descriptors);
  if (waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD) give_up("an engine is left");
  std::printf(
      "stress: %s ops (%s products, %s of them checked; %s others), %s cancelled, %s dropped, "
      "%s kills, %s lost; heap returned: %s bytes held; %lld s, seed %llu\n",
      grouped(counts.ops()).c_str(), grouped(counts.products).c_str(),
      grouped(counts.checked).c_str(), grouped(counts.others).c_str(),
      grouped(counts.cancelled).c_str(), grouped(counts.dropped).c_str(), grouped(kills).c_str(),
      grouped(counts.lost).c_str(), grouped(stats.heap_used_bytes - held_before).c_str(),
      static_cast<long long>(
          std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - start).count()),
      static_cast<unsigned long long>(options.seed));
}

}  // namespace

int main(int count, char** words) {
  try {
    run(options_of(count, words));
  } catch (const std::exception& error) {
    give_up(error.what());
  }
}
