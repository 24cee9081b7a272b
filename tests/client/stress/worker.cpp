#include "worker.h"

#include <utility>
#include <vector>

namespace stress {
namespace {

using shmgemm::Future;

constexpr std::uint32_t kStreams = 4;
constexpr std::uint64_t kMostTogether = 8;
constexpr std::uint64_t kCheckOneIn = 8;

std::string text_of(const shmgemm::GemmCall& call) {
  return std::to_string(call.batch) + " x " + std::to_string(call.m) + "x" +
         std::to_string(call.k) + " @ " + std::to_string(call.k) + "x" + std::to_string(call.n) +
         ", dtypes " + std::to_string(call.dtype_in) + " to " + std::to_string(call.dtype_out);
}

}  // namespace

void Worker::run() {
  try {
    for (std::uint64_t taken = 1; taken != 0;) {
      const std::uint64_t wanted = one_in(random_, 64) ? 1 + below(random_, kMostTogether) : 1;
      taken = shared_.budget.take(wanted);
      if (taken > 1) send_batch(taken);
      if (taken == 1) send_some();
      tend();
      ++shared_.steps;
    }
    while (!open_.empty()) {
      settle(open_.front());
      open_.pop_front();
      ++shared_.steps;
    }
  } catch (const std::exception& error) {
    give_up(std::string("an op ended in neither a result nor a lost device: ") + error.what());
  }
}

// False where `ops` were lost with their engine; nothing but that may go wrong.
template <typename Function>
bool Worker::survives(std::uint64_t ops, const Function& function) {
  try {
    function();
    return true;
  } catch (const shmgemm::DeviceLost&) {
    counts_.lost += ops;
    return false;
  }
}

void Worker::send_some() {
  const std::uint64_t kind = below(random_, 1000);
  if (kind < 60) return multiply_now();
  if (kind < 100) return call_other();
  if (kind < 102) return profile_one();
  send_one();
}

// The C of an earlier product is its A, now and then; then it comes after that one, by name or in
// the same stream.
std::shared_ptr<Product> Worker::draw() {
  if (!open_.empty() && one_in(random_, 8)) {
    const std::shared_ptr<Product>& input = open_[below(random_, open_.size())];
    if (input->next_may_read()) {
      auto product = std::make_shared<Product>(session_, random_, input);
      product->call().device = input->call().device;
      product->call().stream = input->call().stream;
      if (one_in(random_, 2)) {
        order(*product);
        product->call().after = input->future()->mark();
      }
      return product;
    }
  }
  auto product = std::make_shared<Product>(session_, random_);
  order(*product);
  return product;
}

void Worker::order(Product& product) {
  const std::uint64_t stream = below(random_, 2 * kStreams);
  shmgemm::set_current_stream(
      stream < kStreams ? shmgemm::kFirstStream + static_cast<std::uint32_t>(stream) : 0);
  product.call().stream = shmgemm::current_stream();
  product.call().device = static_cast<std::uint8_t>(below(random_, kDevices));
}

void Worker::send_one() {
  const std::shared_ptr<Product> product = draw();
  if (!survives(1, [&] { product->set_future(session_.gemm_async(product->call())); })) return;
  open_.push_back(product);
  if (one_in(random_, 16)) shared_.board.show(random_, product);
}

void Worker::send_batch(std::uint64_t count) {
  std::vector<std::unique_ptr<Product>> products;
  std::vector<shmgemm::GemmCall> calls;
  for (std::uint64_t i = 0; i < count; ++i) {
    products.push_back(std::make_unique<Product>(session_, random_));
    calls.push_back(products.back()->call());
  }
  if (!survives(count, [&] { session_.gemm_batch(calls); })) return;
  counts_.products += count;
  for (const auto& product : products) check(*product);
}

void Worker::multiply_now() {
  Product product(session_, random_);
  order(product);
  if (!survives(1, [&] { session_.gemm(product.call()); })) return;
  ++counts_.products;
  check(product);
}

void Worker::call_other() {
  const auto device = static_cast<std::uint8_t>(below(random_, kDevices));
  const bool made = survives(1, [&] {
    switch (below(random_, 4)) {
      case 0:
        return (void)session_.flush();
      case 1:
        return (void)session_.echo(1, 2, 3);
      case 2:
        return (void)session_.info(device);
      default:
        return (void)session_.noop(device);
    }
  });
  if (made) ++counts_.others;
}

// Others' ops in the meantime have reports too.
void Worker::profile_one() {
  session_.set_profiling(true);
  multiply_now();
  session_.set_profiling(false);
  session_.take_records();
}

void Worker::tend() {
  if (one_in(random_, 8)) touch_shown();
  if (!open_.empty() && one_in(random_, 2)) {
    // The newest is the one that the engine may not have yet.
    const std::size_t at = one_in(random_, 2)
                               ? open_.size() - 1
                               : static_cast<std::size_t>(below(random_, open_.size()));
    const std::shared_ptr<Product> product = open_[at];
    const std::uint64_t kind = below(random_, 100);
    if (kind < 40) product->future()->done();
    if (kind >= 40 && kind < 70) product->future()->wait(1e-6 * double(below(random_, 200)));
    if (kind >= 70 && kind < 75) product->future()->cancel();
    if (kind >= 75 && kind < 80) ++counts_.dropped;
    if (kind >= 80) settle(product);
    if (kind >= 75) open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(at));
  }
  while (open_.size() > window_) {
    settle(open_.front());
    open_.pop_front();
  }
}

void Worker::touch_shown() {
  const std::shared_ptr<Product> product = shared_.board.look(random_);
  if (product == nullptr) return;
  Future& future = *product->future();
  const std::uint32_t stream =
      shmgemm::kFirstStream + static_cast<std::uint32_t>(below(random_, kStreams));
  switch (below(random_, 8)) {
    case 0:
      return (void)future.cancel();
    case 1:
      return (void)session_.reached(future.mark());
    case 2:
      return (void)session_.await(future.mark(), 1e-4);
    case 3:
      return session_.wait_for(stream, future.mark());
    case 4:
      return session_.wait_for(stream, session_.mark(shmgemm::kFirstStream));
    case 5:
      try {
        future.result();
      } catch (const shmgemm::DeviceLost&) {
      } catch (const shmgemm::Cancelled&) {
      }
      return;
    default:
      return (void)future.wait(1e-4);
  }
}

void Worker::settle(const std::shared_ptr<Product>& product) {
  try {
    shmgemm_completion completion{};
    product->lost = !survives(1, [&] { completion = product->future()->result(); });
    if (product->lost) return;
    if (product->input() != nullptr) check_order(*product, completion);
  } catch (const shmgemm::Cancelled&) {
    ++counts_.cancelled;
    return;
  }
  ++counts_.products;
  if (product->input() == nullptr || !product->input()->lost) check(*product);
}

// It started when its input had ended, where an engine has seen both.
void Worker::check_order(const Product& product, const shmgemm_completion& completion) {
  Future& input = *product.input()->future();
  const shmgemm::StreamMark before = input.mark(), mark = product.future()->mark();
  if (before.channel == mark.channel && before.generation != mark.generation) return;
  try {
    const std::uint64_t end = input.result().end_cycles;
    if (completion.start_cycles >= end) return;
    give_up("out of order: " + text_of(product.call()) + " started at cycle " +
            std::to_string(completion.start_cycles) + ", and its input ended at " +
            std::to_string(end));
  } catch (const shmgemm::DeviceLost&) {
  } catch (const shmgemm::Cancelled&) {
  }
}

void Worker::check(const Product& product) {
  if (!one_in(random_, kCheckOneIn)) return;
  const std::string wrong = product.wrong();
  if (!wrong.empty()) give_up("C is wrong: " + text_of(product.call()) + wrong);
  ++counts_.checked;
}

}  // namespace stress
