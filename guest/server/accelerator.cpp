#include "accelerator.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "abi/shmgemm_validate.h"
#include "cpu.h"
#include "log.h"

namespace shmgemm::server {
namespace {

constexpr std::int64_t kRetryNs = 500'000'000;
constexpr std::int64_t kCheckLimitNs = 5'000'000'000;  // for HELLO and the self-check
constexpr std::uint64_t kCheckBytes = 3 * SHMGEMM_BLOCK_ALIGN;

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + SHMGEMM_BLOCK_ALIGN - 1) / SHMGEMM_BLOCK_ALIGN * SHMGEMM_BLOCK_ALIGN;
}

bool on_device(Element element) { return element != Element::kFloat64; }

std::uint8_t dtype_in(Element element) {
  return element == Element::kInt8      ? SHMGEMM_DTYPE_INT8
         : element == Element::kFloat16 ? SHMGEMM_DTYPE_FLOAT16
                                        : SHMGEMM_DTYPE_FLOAT32;
}

// Where A, B, bias and C of one request lie within its block.
struct Layout {
  std::uint64_t a = 0, b, bias, c, bytes;
  explicit Layout(const InlineRequest& request)
      : b(aligned(request.a_bytes())),
        bias(b + aligned(request.b_bytes())),
        c(bias + aligned(request.bias_total_bytes())),
        bytes(c + request.c_bytes()) {}
};

shmgemm_command gemm_command(const InlineRequest& request, std::uint64_t block) {
  const Layout layout(request);
  shmgemm_command command{};
  command.op = SHMGEMM_OP_GEMM;
  command.dtype_in = dtype_in(request.element);
  command.dtype_out = command.dtype_in == SHMGEMM_DTYPE_INT8
                          ? static_cast<std::uint8_t>(SHMGEMM_DTYPE_INT32)
                          : command.dtype_in;
  command.flags = SHMGEMM_FLAG_FLUSH | (request.has_bias ? SHMGEMM_FLAG_BIAS : 0u);
  command.m = request.m;
  command.n = request.n;
  command.k = request.k;
  command.batch = 1;
  command.lda = request.k;
  command.ldb = command.ldc = request.n;
  command.a = block + layout.a;
  command.b = block + layout.b;
  command.c = block + layout.c;
  command.bias = request.has_bias ? block + layout.bias : 0;
  return command;
}

}  // namespace

Accelerator::Accelerator(Loop& loop, Backend* backend, Worker& worker, Counters& counters)
    : backend_(backend),
      worker_(worker),
      counters_(counters),
      port_(loop, backend,
            {[this](const std::vector<Answer>& answers) { answered(answers); },
             [this] { opened(); }, [this](const std::string& why) { lost(why); }}) {
  if (backend == nullptr) reason_ = "the server was started without a device";
}

const Peer* Accelerator::peer() const {
  return port_.channel() != nullptr ? port_.channel()->peer() : nullptr;
}

// --- whether a device answers
// ---------------------------------------------------------------------

void Accelerator::tick() {
  if (backend_ == nullptr) return;
  const std::int64_t now = now_ns();
  if (state_ == State::kDown) {
    if (now >= next_try_ns_) try_open();
  } else if (state_ != State::kUp) {
    if (now >= deadline_ns_) port_.close("the engine did not answer within 5 s");
  } else {
    try {
      port_.channel()->check();
    } catch (const ChannelLost& error) {
      port_.close(error.what());
    }
  }
}

void Accelerator::try_open() {
  const std::int64_t now = now_ns();
  next_try_ns_ = now + kRetryNs;
  deadline_ns_ = now + kCheckLimitNs;
  state_ = State::kOpening;
  port_.open();
}

void Accelerator::opened() {
  try {
    region_ = backend_->map_region(*port_.channel());
    begin_check();
  } catch (const std::runtime_error& error) {
    port_.close(error.what());
  }
}

// A product of two small whole numbers that no earlier check has left behind in memory.
void Accelerator::begin_check() {
  const Peer& peer = *port_.channel()->peer();
  if (std::memcmp(peer.region_id, region_->id(), sizeof peer.region_id) != 0) {
    throw RegionError("region " + region_id_text(region_->id()) +
                      " is not the engine's, which is " + region_id_text(peer.region_id));
  }
  const bool same = arena_ != nullptr && arena_generation_ == peer.generation &&
                    std::memcmp(arena_region_id_, peer.region_id, sizeof arena_region_id_) == 0;
  if (!same) {
    arena_ = std::make_unique<region::Allocator>(region_->arena_begin(), region_->arena_end());
    arena_generation_ = peer.generation;
    std::memcpy(arena_region_id_, peer.region_id, sizeof arena_region_id_);
  }
  const std::uint64_t block = arena_->allocate(kCheckBytes);
  if (block == 0) throw RegionError("the server's arena is full of what a lost engine was given");
  InlineRequest request;
  request.m = request.n = request.k = 1;
  const Layout layout(request);
  const auto a = static_cast<float>(2 + now_ns() / 1000 % 1000), b = 3.0f, none = -1.0f;
  check_product_ = a * b;
  std::memcpy(region_->at(block + layout.a), &a, sizeof a);
  std::memcpy(region_->at(block + layout.b), &b, sizeof b);
  std::memcpy(region_->at(block + layout.c), &none, sizeof none);
  state_ = State::kChecking;
  send(gemm_command(request, block), {nullptr, nullptr, true, block});
}

void Accelerator::answered_check(const shmgemm_completion& completion, std::uint64_t block) {
  if (completion.status != SHMGEMM_STATUS_OK) {
    arena_->release(block);
    const char* why = shmgemm_status_text(completion.status);
    return port_.close(std::string("a 1x1 product as self-check: ") + why);
  }
  InlineRequest request;
  request.m = request.n = request.k = 1;
  float product;
  std::memcpy(&product, region_->at(block + Layout(request).c), sizeof product);
  arena_->release(block);
  if (product != check_product_) {
    return port_.close(
        "a 1x1 product as self-check is wrong: the guest's region is not the engine's "
        "(is share=on missing?)");
  }
  come_up();
}

void Accelerator::come_up() {
  state_ = State::kUp;
  reason_.clear();
  Log::note("a device answers (" + backend_->name() + "): it computes inline ops");
}

// By now whatever was in flight is about to be answered with NO_DEVICE.
void Accelerator::lost(const std::string& why) {
  state_ = State::kDown;
  region_.reset();
  if (why != reason_) Log::note("no device answers (" + why + "): the CPU computes inline ops");
  reason_ = why;
  for (const auto& job : std::exchange(waiting_, {})) run_on_cpu(job);
}

// --- inline ops
// -------------------------------------------------------------------------------------

void Accelerator::run(const std::shared_ptr<InlineJob>& job) {
  const Layout layout(job->frame.request);
  const bool possible = up() && on_device(job->frame.request.element) &&
                        layout.bytes <= region_->arena_end() - region_->arena_begin();
  if (!possible) return run_on_cpu(job);
  if (!waiting_.empty() || !stage(job)) waiting_.push_back(job);
}

bool Accelerator::stage(const std::shared_ptr<InlineJob>& job) {
  const InlineRequest& request = job->frame.request;
  const Layout layout(request);
  const std::uint64_t block = arena_->allocate(layout.bytes);
  if (block == 0) return false;
  const Bytes* matrices = job->frame.matrices;
  std::memcpy(region_->at(block + layout.a), matrices[0].data(), matrices[0].size());
  std::memcpy(region_->at(block + layout.b), matrices[1].data(), matrices[1].size());
  if (request.has_bias) {
    std::memcpy(region_->at(block + layout.bias), matrices[2].data(), matrices[2].size());
  }
  send(gemm_command(request, block), {job, nullptr, false, block});
  return true;
}

void Accelerator::answered_job(const shmgemm_completion& completion, const Pending& pending) {
  const InlineRequest& request = pending.job->frame.request;
  if (region_ == nullptr) return run_on_cpu(pending.job);  // lost since the answer came
  if (completion.status != SHMGEMM_STATUS_OK) {
    Log::note(request.text() + " on the CPU: " + shmgemm_status_text(completion.status));
    return run_on_cpu(pending.job);
  }
  const std::byte* c = region_->at(pending.block + Layout(request).c);
  pending.job->c.assign(c, c + request.c_bytes());
  ++counters_.inline_device;
  pending.job->done();
}

void Accelerator::run_waiting() {
  while (!waiting_.empty() && up() && stage(waiting_.front())) waiting_.pop_front();
  if (waiting_.empty() || !pending_.empty()) return;
  // Nothing is in flight that could make room: what is left of the arena is too small.
  for (const auto& job : std::exchange(waiting_, {})) run_on_cpu(job);
}

void Accelerator::run_on_cpu(const std::shared_ptr<InlineJob>& job) {
  ++counters_.inline_cpu;
  const auto compute = [job] {
    const Bytes* matrices = job->frame.matrices;
    const InlineRequest& request = job->frame.request;
    job->c.resize(request.c_bytes());
    cpu_product(request, matrices[0].data(), matrices[1].data(),
                request.has_bias ? matrices[2].data() : nullptr, job->c.data());
  };
  worker_.run(compute, [job] { job->done(); });
}

// --- records
// ----------------------------------------------------------------------------------------

void Accelerator::ask_info(std::function<void(const shmgemm_info*)> told) {
  const std::uint64_t block = up() ? arena_->allocate(SHMGEMM_REPORT_BYTES) : 0;
  if (block == 0) return told(nullptr);
  shmgemm_command command{};
  command.op = SHMGEMM_OP_GET_INFO;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.report = static_cast<std::uint32_t>(block / SHMGEMM_BLOCK_ALIGN);
  send(command, {nullptr, std::move(told), false, block});
}

void Accelerator::answered_info(const shmgemm_completion& completion, const Pending& pending) {
  if (region_ == nullptr || completion.status != SHMGEMM_STATUS_OK ||
      completion.report_bytes < sizeof(shmgemm_info)) {
    return pending.told(nullptr);
  }
  shmgemm_info info;
  std::memcpy(&info, region_->at(pending.block), sizeof info);
  info.engine[sizeof info.engine - 1] = '\0';
  info.model[sizeof info.model - 1] = '\0';
  info.version[sizeof info.version - 1] = '\0';
  pending.told(&info);
}

void Accelerator::send(shmgemm_command command, Pending pending) {
  command.id = ++next_id_;
  command.generation = arena_generation_;
  pending_.emplace(command.id, std::move(pending));
  port_.submit(&command, 1, now_ns());
}

// A block goes back only where its engine has answered; the others stay with arena_.
void Accelerator::answered(const std::vector<Answer>& answers) {
  bool gone = false;
  for (const Answer& answer : answers) {
    const shmgemm_completion& completion = answer.completion;
    const auto found = pending_.find(completion.id);
    if (found == pending_.end()) continue;
    const Pending pending = std::move(found->second);
    pending_.erase(found);
    const bool no_engine = completion.status == SHMGEMM_STATUS_NO_DEVICE;
    if (pending.is_check) {
      if (state_ == State::kChecking) answered_check(completion, pending.block);
      continue;
    }
    if (pending.job) answered_job(completion, pending);
    if (pending.told) answered_info(completion, pending);
    if (!no_engine) arena_->release(pending.block);
    gone = gone || no_engine || completion.status == SHMGEMM_STATUS_BAD_GENERATION;
  }
  if (gone && up()) port_.close("the engine is gone");
  run_waiting();
}

}  // namespace shmgemm::server
