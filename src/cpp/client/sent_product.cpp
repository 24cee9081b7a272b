#include "client/sent_product.h"

#include <utility>

#include "client/product.h"

namespace shmgemm {

SentProduct::~SentProduct() {
  if (over_.load() || !impl_.ours()) return;
  op_.channel->abandon(op_.id, std::move(product_));
}

bool SentProduct::done() { return over_.load() || !impl_.ours() || op_.channel->settled(op_.id); }

bool SentProduct::wait(double timeout_s) {
  if (!impl_.ours()) return true;
  if (over_.load() || (timeout_s == 0 && done())) return true;
  return op_.channel->await(op_.id, client::limit_after(timeout_s), expect_);
}

shmgemm_completion SentProduct::result() {
  if (!over_.load()) {
    if (!impl_.ours()) throw_parents();
    wait(-1);
    settle();
  }
  if (error_) std::rethrow_exception(error_);
  return completion_;
}

void SentProduct::settle() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (over_.load()) return;
  try {
    completion_ = op_.channel->take(op_.id);
    impl_.settle(*product_, completion_);
  } catch (...) {
    error_ = std::current_exception();
  }
  product_.reset();
  over_.store(true);
}

bool SentProduct::cancel() {
  if (!impl_.ours()) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (over_.load() || op_.channel->settled(op_.id)) return false;
  op_.channel->abandon(op_.id, std::move(product_));
  error_ = std::make_exception_ptr(Cancelled("the product was cancelled"));
  over_.store(true);
  return true;
}

}  // namespace shmgemm
