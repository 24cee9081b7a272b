// One thread of the stress test: sends ops of all kinds, keeps some futures, and waits for, cancels
// or drops them in no order, its own and those that others show.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>

#include "shared.h"

namespace stress {

class Worker {
 public:
  // At most `window` futures are open at once.
  Worker(shmgemm::Session& session, Shared& shared, std::uint64_t seed, std::size_t window)
      : session_(session), shared_(shared), random_(seed), window_(window) {}

  void run();  // until the budget is spent and nothing is open
  const Counts& counts() const { return counts_; }

 private:
  void send_some();
  void send_one();
  void send_batch(std::uint64_t count);
  void multiply_now();
  void call_other();
  void profile_one();
  std::shared_ptr<Product> draw();
  void order(Product& product);
  void tend();
  void touch_shown();
  void settle(const std::shared_ptr<Product>& product);
  void check_order(const Product& product, const shmgemm_completion& completion);
  void check(const Product& product);
  template <typename Function>
  bool survives(std::uint64_t ops, const Function& function);

  shmgemm::Session& session_;
  Shared& shared_;
  Random random_;
  const std::size_t window_;
  std::deque<std::shared_ptr<Product>> open_;
  Counts counts_;
};

}  // namespace stress
