// What the threads of the stress test have in common: how many ops are still to be sent, what
// became of those that were, and a few products that any thread may touch.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "product.h"

namespace stress {

// What became of ops; each is counted once.
struct Counts {
  std::uint64_t products = 0, others = 0, cancelled = 0, dropped = 0, lost = 0;
  std::uint64_t checked = 0;  // of the products, against a triple loop

  std::uint64_t ops() const { return products + others + cancelled + dropped + lost; }
  void add(const Counts& more) {
    products += more.products;
    others += more.others;
    cancelled += more.cancelled;
    dropped += more.dropped;
    lost += more.lost;
    checked += more.checked;
  }
};

[[noreturn]] inline void give_up(const std::string& why) {
  std::fprintf(stderr, "stress: %s\n", why.c_str());
  std::abort();
}

// Hands out the ops that are still to be sent.
class Budget {
 public:
  explicit Budget(std::uint64_t ops) : ops_(ops) {}
  std::uint64_t taken() const { return taken_.load(); }
  std::uint64_t take(std::uint64_t wanted) {  // 0: there are no more
    std::uint64_t before = taken_.load(), got = 0;
    do {
      got = std::min(wanted, ops_ - before);
    } while (!taken_.compare_exchange_weak(before, before + got));
    return got;
  }

 private:
  const std::uint64_t ops_;
  std::atomic<std::uint64_t> taken_{0};
};

// Products on display.
class Board {
 public:
  std::shared_ptr<Product> look(Random& random) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return places_[below(random, places_.size())];
  }
  void show(Random& random, std::shared_ptr<Product> product) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::swap(places_[below(random, places_.size())], product);
  }
  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& place : places_) place.reset();
  }

 private:
  std::mutex mutex_;
  std::array<std::shared_ptr<Product>, 8> places_;
};

struct Shared {
  explicit Shared(std::uint64_t ops) : budget(ops) {}
  Budget budget;
  Board board;
  std::atomic<std::uint64_t> steps{0};  // of all threads: grows while nothing hangs
};

}  // namespace stress
