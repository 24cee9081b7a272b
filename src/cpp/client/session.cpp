#include "client/session.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "abi/shmgemm_validate.h"
#include "client/attach.h"
#include "client/channel.h"
#include "client/connection_pool.h"
#include "client/current.h"
#include "client/heap.h"
#include "client/in_flight.h"
#include "client/inline_gemm.h"
#include "client/lane.h"
#include "client/ledger.h"
#include "client/product.h"
#include "client/streams.h"

namespace shmgemm {
namespace {

using client::Channel;
using client::deadline_after;
using client::Lane;

// A product that keeps the engine busy for longer than anyone should spin.
constexpr std::uint64_t kLongMacs = 4'000'000;
constexpr std::uint64_t kMostCycles = 1ull << 62;  // simulated time ends before
constexpr unsigned kLaneShift = 56;                // an id of the raw path: lane, id in its channel
// Of a wait that may end without a result; below 0: none.
Channel::Deadline limit_after(double seconds) {
  if (seconds == 0) return region::Clock::now();
  return deadline_after(seconds);
}

void check_processes(const SessionOptions& options) {
  if (options.processes == 1) return;
  const std::string given = "processes = " + std::to_string(options.processes);
  if (options.processes < 1 || options.processes > SHMGEMM_MAX_ENGINES) {
    throw Unsupported(given + ": expected 1 to " + std::to_string(SHMGEMM_MAX_ENGINES));
  }
  if (options.processes > options.devices) {
    throw Unsupported(given + ", devices = " + std::to_string(options.devices) +
                      ": expected at least one device for each process");
  }
  if (options.guest || !options.server.empty()) {
    throw Unsupported(given + ": expected 1, as a device server has one engine behind it");
  }
}

[[noreturn]] void throw_closed() {
  client::forget_use();  // this thread knows now
  throw Closed("the session was closed");
}

[[noreturn]] void throw_parents() {
  throw Closed("this session belongs to the process that forked this one; open another here");
}

void log(const std::string& what, const shmgemm_completion& completion) {
  std::fprintf(stderr, "shmgemm: %s id %llu status %u cycles %llu..%llu\n", what.c_str(),
               static_cast<unsigned long long>(completion.id), unsigned{completion.status},
               static_cast<unsigned long long>(completion.start_cycles),
               static_cast<unsigned long long>(completion.end_cycles));
}

// What of a batch goes to one engine.
struct Part {
  Channel* channel = nullptr;         // null: nothing does
  std::vector<std::size_t> products;  // of the batch
  std::vector<shmgemm_command> commands;
  bool answered = false;

  void submit() {
    if (channel == nullptr) return;
    shmgemm_command flush{};
    flush.op = SHMGEMM_OP_FLUSH;
    commands.push_back(flush);
    channel->submit(commands.data(), commands.size(), Channel::kNoDeadline);
  }

  void wait(std::vector<shmgemm_completion>& completions) {
    if (channel == nullptr || commands.back().id == 0) return;
    try {
      channel->wait(commands.back().id, Channel::kNoDeadline, region::Expect::kShort);
      for (std::size_t i = 0; i < products.size(); ++i) {
        completions[products[i]] =
            channel->wait(commands[i].id, Channel::kNoDeadline, region::Expect::kShort);
      }
    } catch (...) {
      abandon();
      throw;
    }
    answered = true;
  }

  // Whatever is still under way keeps its blocks until it was answered.
  void abandon() {
    for (const shmgemm_command& command : commands) {
      if (command.id != 0) channel->abandon(command.id, nullptr);
    }
  }
};

}  // namespace

// One product that was sent, of a session that it keeps. Many threads may wait for it; one settles.
// A forked child has no engine, and must not touch what its parent's threads may hold: there it is
// done, with an error.
class SentProduct final : public Future {
 public:
  SentProduct(std::shared_ptr<Session> session, SessionImpl& impl,
              std::shared_ptr<client::InFlight> product, StreamMark op)
      : session_(std::move(session)),
        impl_(impl),
        expect_(client::macs_of(product->call()) > kLongMacs ? region::Expect::kLong
                                                             : region::Expect::kShort),
        product_(std::move(product)),
        op_(op) {}
  ~SentProduct() override;

  bool done() override;
  bool wait(double timeout_s) override;
  shmgemm_completion result() override;
  StreamMark mark() const override { return op_; }
  bool cancel() override;

 private:
  void settle();

  const std::shared_ptr<Session> session_;
  SessionImpl& impl_;
  const region::Expect expect_;
  std::shared_ptr<client::InFlight> product_;  // until it is over
  const StreamMark op_;
  std::mutex mutex_;
  std::atomic<bool> over_{false};
  shmgemm_completion completion_{};
  std::exception_ptr error_;
};

// One that was computed at once, where matrices travel.
class DoneProduct final : public Future {
 public:
  explicit DoneProduct(const shmgemm_completion& completion) : completion_(completion) {}
  bool done() override { return true; }
  bool wait(double) override { return true; }
  shmgemm_completion result() override { return completion_; }
  StreamMark mark() const override { return {}; }
  bool cancel() override { return false; }

 private:
  const shmgemm_completion completion_;
};

class SessionImpl {
 public:
  explicit SessionImpl(const SessionOptions& options)
      : options_((check_processes(options), options)),
        attachment_(client::attach(options_, client::deadline_after(options.timeout_s))),
        heap_(attachment_ ? attachment_->heap() : heap_for(options)) {
    for (std::uint32_t number = 0; number < options.processes; ++number) {
      lanes_.push_back(std::make_unique<Lane>(options_, heap_, ledger_, number, attachment_.get()));
    }
    if (!options_.server.empty() && options_.region_path.empty()) {
      start_pool();
      return;
    }
    for (const auto& lane : lanes_) lane->launch();
    for (const auto& lane : lanes_) lane->start();
  }
  ~SessionImpl() { close(); }

  client::Heap& heap() { return *heap_; }
  const client::Heap& heap() const { return *heap_; }
  // That serves a device; the engine of one that is not there refuses it.
  Lane& lane_of(std::uint8_t device) const { return *lanes_[device % lanes_.size()]; }
  bool ours() const { return heap_->ours(); }
  bool closed() const { return closed_->load() || !ours(); }

  // Before each op: the engine of its device runs, or runs again.
  void ready(std::uint8_t device) {
    if (!ours()) throw_parents();
    if (closed_->load()) throw_closed();
    Lane& lane = lane_of(device);
    if (!pool_ && lane.channel().failed()) {
      lane.revive(*closed_);
      if (closed_->load()) throw_closed();
    }
    client::note_use(closed_);
  }

  void ready_for_commands(std::uint8_t device, const char* what) {
    ready(device);
    if (pool_) refuse_inline(what);
  }

  void close() {
    if (!ours()) return;
    const std::lock_guard<std::mutex> lock(closing_);
    if (closed_->exchange(true)) return;
    for (const auto& lane : lanes_) lane->ask_to_end();
    for (const auto& lane : lanes_) lane->end();
    if (attachment_) attachment_->hang_up();
    if (pool_) pool_->close();
    for (const auto& lane : lanes_) {
      lane->channel().wait_until_unused(std::chrono::milliseconds(200));
    }
  }

  shmgemm_completion gemm(const GemmCall& call);
  StreamMark send(client::InFlight& product);
  std::vector<shmgemm_completion> gemm_batch(const std::vector<GemmCall>& calls);
  void check_product(const GemmCall& call) const;
  // C holds what a completed product says, or its refusal is thrown. The completion is made the
  // session's: it comes as the engine has it.
  void settle(client::InFlight& product, shmgemm_completion& completion);
  client::Streams& streams() { return streams_; }
  bool inline_only() const { return pool_ != nullptr; }
  shmgemm_completion gemm_inline(const GemmCall& call);
  shmgemm_completion call(shmgemm_command command, const char* name);
  shmgemm_completion run(const shmgemm_command& command, region::Expect expect);
  shmgemm_completion flush();
  std::uint64_t submit_raw(const shmgemm_command& command);
  shmgemm_completion wait_raw(std::uint64_t id, double timeout_s);
  shmgemm_info info(std::uint8_t device);
  Stats stats() const;

  std::vector<int> engine_pids() const {
    std::vector<int> pids;
    for (const auto& lane : lanes_) pids.push_back(lane->engine_pid());
    return pids;
  }
  client::Ledger& ledger() { return ledger_; }
  const SessionOptions& options() const { return options_; }

 private:
  static std::shared_ptr<client::Heap> heap_for(const SessionOptions& options);
  // The release time that a command must carry, whatever lane it goes to. Simulated time belongs to
  // an engine, and a new one begins at 0; but for the program it is one, and what it has waited for
  // is past.
  std::uint64_t release_cycles(std::uint64_t wanted) const {
    return std::max(wanted, now_.load(std::memory_order_relaxed));
  }
  void waited_for(const shmgemm_completion& completion);
  std::uint32_t generation_of(const Channel* channel) const;
  shmgemm_command for_engine(shmgemm_command command) const;
  shmgemm_command command_of(const client::InFlight& product);
  void keep_order(shmgemm_command& command, const StreamMark& after);
  std::vector<shmgemm_completion> send_together(
      const std::vector<std::unique_ptr<client::InFlight>>& products);
  void start_pool();
  [[noreturn]] void refuse_device(std::uint8_t device, const std::string& what) const;
  [[noreturn]] void refuse_inline(const std::string& what) const;
  [[noreturn]] void refuse(const shmgemm_completion& completion, const std::string& what);

  SessionOptions options_;
  const std::unique_ptr<client::Attachment> attachment_;  // to a session of another process
  std::shared_ptr<client::Heap> heap_;
  std::unique_ptr<client::ConnectionPool> pool_;  // where matrices travel
  const std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex closing_;
  client::Ledger ledger_;
  client::Streams streams_;
  std::atomic<std::uint64_t> now_{0};  // the largest end that was waited for
  std::vector<std::unique_ptr<Lane>> lanes_;
};

// What a broken engine says is no time.
void SessionImpl::waited_for(const shmgemm_completion& completion) {
  if (completion.end_cycles >= kMostCycles) return;
  std::uint64_t now = now_.load(std::memory_order_relaxed);
  while (now < completion.end_cycles &&
         !now_.compare_exchange_weak(now, completion.end_cycles, std::memory_order_relaxed)) {
  }
}

// Of the engine behind a channel now.
std::uint32_t SessionImpl::generation_of(const Channel* channel) const {
  for (const auto& lane : lanes_) {
    if (&lane->channel() == channel) return lane->generation();
  }
  return 0;
}

// A command of the session's as the engine of its device must see it.
shmgemm_command SessionImpl::for_engine(shmgemm_command command) const {
  command.release_cycles = release_cycles(command.release_cycles);
  command.device = lane_of(command.device).device_here(command.device);
  return command;
}

void SessionImpl::refuse_device(std::uint8_t device, const std::string& what) const {
  const std::uint32_t last = options_.devices - 1;
  throw Unsupported(what + ": got sim_device " + std::to_string(device) + "; expected " +
                    (last == 0 ? "0: the session has one device"
                               : "0 to " + std::to_string(last) + ": the session has " +
                                     std::to_string(options_.devices) + " devices"));
}

void SessionImpl::refuse_inline(const std::string& what) const {
  throw Unsupported(what + " needs the region of the device server's engine: connect to " +
                    options_.server + " with region=");
}

// What an engine's refusal means to the caller.
void SessionImpl::refuse(const shmgemm_completion& completion, const std::string& what) {
  if (completion.status == SHMGEMM_STATUS_NO_DEVICE) {
    lane_of(static_cast<std::uint8_t>(completion.device)).await_verdict();
    throw DeviceLost(what + ": " + shmgemm_status_text(completion.status));
  }
  ledger_.count_reject();
  std::string text = what + " was refused: " + shmgemm_status_text(completion.status);
  if (completion.status == SHMGEMM_STATUS_ERROR ||
      completion.status == SHMGEMM_STATUS_UNSUPPORTED) {
    const auto model = options_.parameters.find("model");
    if (model != options_.parameters.end()) text += "; timing model \"" + model->second + "\"";
    text += "; the engine's standard error says why";
  }
  if (completion.status >= SHMGEMM_STATUS_UNSUPPORTED) throw Unsupported(text);
  throw Error(text);
}

std::shared_ptr<client::Heap> SessionImpl::heap_for(const SessionOptions& options) {
  if (!options.region_path.empty()) return client::Heap::lease(options.region_path);
  return std::make_shared<client::Heap>(options.region_bytes, options.guest_arena_bytes,
                                        options.processes, options.clients);
}

void SessionImpl::start_pool() {
  pool_ = std::make_unique<client::ConnectionPool>(client::parse_address(options_.server),
                                                   options_.connections);
  pool_->checkout(deadline_after(options_.timeout_s))->give_back();
}

shmgemm_completion SessionImpl::run(const shmgemm_command& command, region::Expect expect) {
  Channel& channel = lane_of(command.device).channel();
  try {
    const std::uint64_t id = channel.submit(for_engine(command), false, Channel::kNoDeadline);
    shmgemm_completion completion = channel.wait(id, Channel::kNoDeadline, expect);
    completion.device = command.device;
    waited_for(completion);
    return completion;
  } catch (const Closed&) {
    throw_closed();
  }
}

void SessionImpl::check_product(const GemmCall& call) const {
  if (call.device >= options_.devices) refuse_device(call.device, client::text_of(call));
}

shmgemm_command SessionImpl::command_of(const client::InFlight& product) {
  shmgemm_command command = product.command();
  if (options_.bit_accurate) command.flags |= SHMGEMM_FLAG_BIT_ACCURATE;
  keep_order(command, product.call().after);
  return command;
}

// What it and its stream wait for: the first as `after`, each other one as a NOOP before it in the
// stream.
void SessionImpl::keep_order(shmgemm_command& command, const StreamMark& after) {
  Channel& channel = lane_of(command.device).channel();
  auto inputs = streams_.take_dependencies(command.stream, channel);
  if (after.channel != nullptr) {
    if (after.generation != generation_of(after.channel)) {
      throw DeviceLost("the product that this one waits for was lost with its engine");
    }
    inputs.push_back(after);
  }
  for (const StreamMark& op : inputs) {
    if (op.channel != &channel) {  // no engine knows of another's ops: wait for it here
      op.channel->await(op.id, Channel::kNoDeadline, region::Expect::kShort);
      command.release_cycles = std::max(command.release_cycles, op.channel->end_cycles(op.id));
      continue;
    }
    const auto id = static_cast<std::uint32_t>(op.id);
    if (command.after == 0) {
      command.after = id;
      continue;
    }
    shmgemm_command noop{};
    noop.op = SHMGEMM_OP_NOOP;
    noop.device = command.device;
    noop.stream = command.stream;
    noop.after = id;
    channel.abandon(channel.submit(for_engine(noop), false, Channel::kNoDeadline), nullptr);
  }
}

shmgemm_completion SessionImpl::gemm(const GemmCall& call) {
  ready(call.device);
  check_product(call);
  if (pool_) return gemm_inline(call);
  client::InFlight product(*heap_, ledger_, call);
  shmgemm_command command = command_of(product);
  command.flags |= SHMGEMM_FLAG_FLUSH;
  const bool is_long = client::macs_of(call) > kLongMacs;
  shmgemm_completion completion =
      run(command, is_long ? region::Expect::kLong : region::Expect::kShort);
  settle(product, completion);
  return completion;
}

void SessionImpl::settle(client::InFlight& product, shmgemm_completion& completion) {
  completion.device = product.call().device;
  waited_for(completion);
  if (options_.debug) log(client::text_of(product.call()), completion);
  if (completion.status != SHMGEMM_STATUS_OK) refuse(completion, client::text_of(product.call()));
  product.finish(completion);
}

StreamMark SessionImpl::send(client::InFlight& product) {
  const shmgemm_command command = command_of(product);
  Lane& lane = lane_of(command.device);
  const std::uint32_t generation = lane.generation();
  try {
    const StreamMark op{&lane.channel(),
                        lane.channel().submit(for_engine(command), false, Channel::kNoDeadline),
                        generation};
    streams_.sent(command.stream, op);
    return op;
  } catch (const Closed&) {
    throw_closed();
  }
}

std::vector<shmgemm_completion> SessionImpl::gemm_batch(const std::vector<GemmCall>& calls) {
  std::vector<shmgemm_completion> completions;
  for (const GemmCall& call : calls) check_product(call);
  if (calls.empty()) ready(0);
  for (const GemmCall& call : calls) ready(call.device);
  if (pool_) {
    for (const GemmCall& call : calls) completions.push_back(gemm_inline(call));
    return completions;
  }
  for (std::size_t begin = 0; begin < calls.size(); begin += Channel::kMostTogether - 1) {
    std::vector<std::unique_ptr<client::InFlight>> products;
    const std::size_t end = std::min(calls.size(), begin + Channel::kMostTogether - 1);
    for (std::size_t i = begin; i < end; ++i) {
      products.push_back(std::make_unique<client::InFlight>(*heap_, ledger_, calls[i]));
    }
    for (const shmgemm_completion& one : send_together(products)) completions.push_back(one);
  }
  return completions;
}

// Each engine's part with one wake-up; a FLUSH op behind it stands for it all. What was sent to an
// engine that is lost does not keep the others from ending.
std::vector<shmgemm_completion> SessionImpl::send_together(
    const std::vector<std::unique_ptr<client::InFlight>>& products) {
  std::vector<Part> parts(lanes_.size());
  for (std::size_t i = 0; i < products.size(); ++i) {
    const shmgemm_command command = command_of(*products[i]);
    Part& part = parts[command.device % lanes_.size()];
    part.channel = &lane_of(command.device).channel();
    part.products.push_back(i);
    part.commands.push_back(for_engine(command));
  }
  std::vector<shmgemm_completion> completions(products.size());
  std::exception_ptr error;
  const auto keep = [&error](const auto& function) {
    try {
      function();
    } catch (const DeviceLost&) {
      if (!error) error = std::current_exception();
    }
  };
  try {
    for (Part& part : parts) keep([&] { part.submit(); });
    for (Part& part : parts) keep([&] { part.wait(completions); });
  } catch (...) {
    for (Part& part : parts) part.abandon();
    throw;
  }
  for (const Part& part : parts) {
    for (const std::size_t i : part.products) {
      if (!part.answered) continue;
      try {
        settle(*products[i], completions[i]);
      } catch (const Error&) {
        if (!error) error = std::current_exception();
      }
    }
  }
  if (error) std::rethrow_exception(error);
  return completions;
}

// No cycles come back: they are 0 in the answer, in the totals and in the record.
shmgemm_completion SessionImpl::gemm_inline(const GemmCall& call) {
  const std::uint64_t start_ns = client::steady_ns();
  client::inline_gemm(*pool_, call, options_.timeout_s);
  const shmgemm_completion completion{};
  const std::uint64_t bytes = client::bytes_of(call);
  ledger_.count(call, completion, bytes);
  if (ledger_.profiling()) ledger_.record(call, completion, bytes, start_ns, scope(), nullptr);
  return completion;
}

shmgemm_completion SessionImpl::call(shmgemm_command command, const char* name) {
  ready_for_commands(command.device, name);
  if (command.device >= options_.devices) refuse_device(command.device, name);
  const shmgemm_completion completion = run(command, region::Expect::kShort);
  if (options_.debug) log(name, completion);
  if (completion.status != SHMGEMM_STATUS_OK) refuse(completion, name);
  return completion;
}

// Of every engine; time is where the last of them is. Where one is lost the others are flushed
// first.
shmgemm_completion SessionImpl::flush() {
  shmgemm_completion last{};
  std::exception_ptr error;
  for (std::size_t device = 0; device < lanes_.size(); ++device) {  // lane i serves device i
    shmgemm_command command{};
    command.op = SHMGEMM_OP_FLUSH;
    command.device = static_cast<std::uint8_t>(device);
    try {
      const shmgemm_completion completion = call(command, "FLUSH");
      if (completion.end_cycles >= last.end_cycles) last = completion;
    } catch (const DeviceLost&) {
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
  last.start_cycles = last.end_cycles = release_cycles(last.end_cycles);
  return last;
}

std::uint64_t SessionImpl::submit_raw(const shmgemm_command& command) {
  ready_for_commands(command.device, "a command");
  const std::uint64_t lane = command.device % lanes_.size();
  return lanes_[lane]->channel().submit(for_engine(command), true, Channel::kNoDeadline) |
         lane << kLaneShift;
}

shmgemm_completion SessionImpl::wait_raw(std::uint64_t id, double timeout_s) {
  const std::uint64_t lane = id >> kLaneShift;
  if (lane >= lanes_.size()) {
    throw Unsupported("command " + std::to_string(id) + " is not in flight in this session");
  }
  shmgemm_completion completion = lanes_[lane]->channel().wait(
      id & ((1ull << kLaneShift) - 1), deadline_after(timeout_s), region::Expect::kShort);
  completion.id = id;
  completion.device = static_cast<std::uint16_t>(completion.device * lanes_.size() + lane);
  waited_for(completion);
  return completion;
}

shmgemm_info SessionImpl::info(std::uint8_t device) {
  const auto block = client::allocate_or_throw(*heap_, SHMGEMM_REPORT_BYTES);
  shmgemm_command command{};
  command.op = SHMGEMM_OP_GET_INFO;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.device = device;
  command.report = static_cast<std::uint32_t>(block->offset() / SHMGEMM_BLOCK_ALIGN);
  const shmgemm_completion completion = call(command, "GET_INFO");
  shmgemm_info info{};
  if (completion.report_bytes < sizeof info) {
    throw ProtocolError("the engine's GET_INFO report has " +
                        std::to_string(completion.report_bytes) + " bytes, " +
                        std::to_string(sizeof info) + " expected");
  }
  std::memcpy(&info, block->data(), sizeof info);
  info.engine[sizeof info.engine - 1] = info.model[sizeof info.model - 1] =
      info.version[sizeof info.version - 1] = '\0';
  if (lanes_.size() > 1) info.devices = options_.devices;
  return info;
}

Stats SessionImpl::stats() const {
  Stats stats = ledger_.totals();
  for (const auto& lane : lanes_) stats.commands += lane->channel().commands();
  stats.region_bytes = heap_->region().bytes();
  stats.heap_bytes = heap_->allocator().capacity_bytes();
  stats.heap_used_bytes = heap_->allocator().used_bytes();
  return stats;
}

// --- futures -------------------------------------------------------------------------------------

SentProduct::~SentProduct() {
  if (over_.load() || !impl_.ours()) return;
  op_.channel->abandon(op_.id, std::move(product_));
}

bool SentProduct::done() { return over_.load() || !impl_.ours() || op_.channel->settled(op_.id); }

bool SentProduct::wait(double timeout_s) {
  if (!impl_.ours()) return true;
  if (over_.load() || (timeout_s == 0 && done())) return true;
  return op_.channel->await(op_.id, limit_after(timeout_s), expect_);
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

// --- the public class ----------------------------------------------------------------------------

Session::Session(std::unique_ptr<SessionImpl> impl) : impl_(std::move(impl)) {}

Session::~Session() {
  // In a forked child the threads and locks behind it are not ours to end.
  if (!impl_->ours()) {
    (void)impl_.release();
  } else if (!impl_->closed()) {
    close();
  }
}

std::shared_ptr<Session> Session::open(const SessionOptions& options) {
  return std::shared_ptr<Session>(new Session(std::make_unique<SessionImpl>(options)));
}

std::shared_ptr<Block> Session::allocate(std::uint64_t bytes) {
  if (impl_->closed()) throw_closed();
  return client::allocate_or_throw(impl_->heap(), bytes);
}

bool Session::contains(const void* data, std::uint64_t bytes) const {
  return impl_->heap().contains(data, bytes);
}

shmgemm_completion Session::gemm(const GemmCall& call) { return impl_->gemm(call); }

std::shared_ptr<Future> Session::gemm_async(const GemmCall& call) {
  impl_->ready(call.device);
  impl_->check_product(call);
  if (impl_->inline_only()) return std::make_shared<DoneProduct>(impl_->gemm(call));
  auto product = std::make_shared<client::InFlight>(impl_->heap(), impl_->ledger(), call);
  const StreamMark op = impl_->send(*product);
  return std::make_shared<SentProduct>(shared_from_this(), *impl_, std::move(product), op);
}

std::vector<shmgemm_completion> Session::gemm_batch(const std::vector<GemmCall>& calls) {
  return impl_->gemm_batch(calls);
}

StreamMark Session::mark(std::uint32_t stream) const { return impl_->streams().last(stream); }

void Session::wait_for(std::uint32_t stream, const StreamMark& mark) {
  if (impl_->closed()) throw_closed();
  impl_->streams().wait(stream, mark);
}

bool Session::reached(const StreamMark& mark) {
  if (impl_->closed()) throw_closed();
  return mark.channel == nullptr || mark.channel->settled(mark.id);
}

bool Session::await(const StreamMark& mark, double timeout_s) {
  if (impl_->closed()) throw_closed();
  if (mark.channel == nullptr) return true;
  return mark.channel->await(mark.id, limit_after(timeout_s), region::Expect::kShort);
}

shmgemm_completion Session::noop(std::uint8_t device) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_NOOP;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.device = device;
  return impl_->call(command, "NOOP");
}

shmgemm_completion Session::echo(std::uint64_t x, std::uint64_t y, std::uint64_t z) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_ECHO;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.arg[0] = x;
  command.arg[1] = y;
  command.arg[2] = z;
  return impl_->call(command, "ECHO");
}

shmgemm_completion Session::flush() { return impl_->flush(); }

void Session::reset(std::uint8_t device) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_RESET;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.device = device;
  impl_->call(command, "RESET");
}

shmgemm_info Session::info(std::uint8_t device) { return impl_->info(device); }

std::uint64_t Session::submit(shmgemm_command command) { return impl_->submit_raw(command); }

shmgemm_completion Session::wait(std::uint64_t id, double timeout_s) {
  if (impl_->closed()) throw_closed();
  return impl_->wait_raw(id, timeout_s);
}

Stats Session::stats() const { return impl_->stats(); }
void Session::set_profiling(bool on) { impl_->ledger().set_profiling(on); }
std::vector<OpRecord> Session::take_records() { return impl_->ledger().take_records(); }
void Session::close() {
  impl_->close();
  client::forget_use();
}
bool Session::closed() const { return impl_->closed(); }
int Session::engine_pid() const { return impl_->engine_pids().front(); }
std::vector<int> Session::engine_pids() const { return impl_->engine_pids(); }
int Session::region_fd() const { return impl_->heap().region().fd(); }
std::uint32_t Session::devices() const { return impl_->options().devices; }
const std::map<std::string, std::string>& Session::parameters() const {
  return impl_->options().parameters;
}
std::uint32_t Session::generation() const { return impl_->heap().region().generation(); }

}  // namespace shmgemm
