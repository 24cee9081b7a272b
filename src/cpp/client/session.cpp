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
#include "client/channel.h"
#include "client/connection_pool.h"
#include "client/current.h"
#include "client/engine_process.h"
#include "client/heap.h"
#include "client/in_flight.h"
#include "client/inline_gemm.h"
#include "client/ledger.h"
#include "client/monitor.h"
#include "client/product.h"
#include "client/ring_port.h"
#include "client/server_port.h"
#include "client/streams.h"

namespace shmgemm {
namespace {

using client::Channel;

// A product that keeps the engine busy for longer than anyone should spin.
constexpr std::uint64_t kLongMacs = 4'000'000;
constexpr double kDeviceLimitS = 5;              // for a device to find a new engine
constexpr std::chrono::seconds kAnswerGrace{1};  // for its last answer, which says why not

Channel::Deadline deadline_after(double seconds) {
  if (seconds <= 0) return Channel::kNoDeadline;
  return region::Clock::now() +
         std::chrono::duration_cast<region::Nanoseconds>(std::chrono::duration<double>(seconds));
}

// Of a wait that may end without a result; below 0: none.
Channel::Deadline limit_after(double seconds) {
  if (seconds == 0) return region::Clock::now();
  return deadline_after(seconds);
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

}  // namespace

// One product that was sent, of a session that it keeps. Many threads may wait for it; one settles.
// A forked child has no engine, and must not touch what its parent's threads may hold: there it is
// done, with an error.
class SentProduct final : public Future {
 public:
  SentProduct(std::shared_ptr<Session> session, SessionImpl& impl,
              std::shared_ptr<client::InFlight> product, client::SentOp op)
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
  bool cancel() override;

 private:
  void settle();

  const std::shared_ptr<Session> session_;
  SessionImpl& impl_;
  const region::Expect expect_;
  std::shared_ptr<client::InFlight> product_;  // until it is over
  const client::SentOp op_;
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
  bool cancel() override { return false; }

 private:
  const shmgemm_completion completion_;
};

class SessionImpl {
 public:
  explicit SessionImpl(const SessionOptions& options)
      : options_(options), heap_(heap_for(options)), channel_(heap_) {
    start();
  }
  ~SessionImpl() { close(); }

  client::Heap& heap() { return *heap_; }
  const client::Heap& heap() const { return *heap_; }
  Channel& channel() { return channel_; }
  bool ours() const { return heap_->ours(); }
  bool closed() const { return closed_->load() || !ours(); }

  // Before each op: the engine runs, or runs again.
  void ready() {
    if (!ours()) throw_parents();
    if (closed_->load()) throw_closed();
    if (!pool_ && channel_.failed()) {
      const std::lock_guard<std::mutex> lock(lifecycle_);
      if (closed_->load()) throw_closed();
      if (channel_.failed()) start();
    }
    client::note_use(closed_);
  }

  void ready_for_commands(const char* what) {
    ready();
    if (pool_) refuse_inline(what);
  }

  void close() {
    if (!ours()) return;
    const std::lock_guard<std::mutex> lock(lifecycle_);
    if (closed_->exchange(true)) return;
    end_generation();
    if (pool_) pool_->close();
    channel_.wait_until_unused(std::chrono::milliseconds(200));
  }

  shmgemm_completion gemm(const GemmCall& call);
  client::SentOp send(client::InFlight& product);
  std::vector<shmgemm_completion> gemm_batch(const std::vector<GemmCall>& calls);
  void check_product(const GemmCall& call) const;
  // C holds what a completed product says, or its refusal is thrown.
  void settle(client::InFlight& product, const shmgemm_completion& completion);
  client::Streams& streams() { return streams_; }
  bool inline_only() const { return pool_ != nullptr; }
  shmgemm_completion gemm_inline(const GemmCall& call);
  shmgemm_completion call(shmgemm_command command, const char* name);
  shmgemm_completion run(const shmgemm_command& command, region::Expect expect);
  shmgemm_info info(std::uint8_t device);
  Stats stats() const;

  int engine_pid() const {
    const std::lock_guard<std::mutex> lock(lifecycle_);
    return engine_ && !channel_.failed() ? engine_->pid() : 0;
  }
  client::Ledger& ledger() { return ledger_; }
  const SessionOptions& options() const { return options_; }

 private:
  static std::shared_ptr<client::Heap> heap_for(const SessionOptions& options);
  void start();
  void start_once();
  shmgemm_command command_of(const client::InFlight& product);
  void keep_order(shmgemm_command& command);
  std::vector<shmgemm_completion> send_together(
      const std::vector<std::unique_ptr<client::InFlight>>& products);
  void end_generation();
  void start_pool();
  void start_engine();
  std::unique_ptr<client::ServerPort> connect_server();
  void await_device(Channel::Deadline deadline);
  void await_verdict() const;
  [[noreturn]] void refuse_device(std::uint8_t device, const std::string& what) const;
  [[noreturn]] void refuse_inline(const std::string& what) const;
  [[noreturn]] void refuse(const shmgemm_completion& completion, const std::string& what);

  SessionOptions options_;
  std::shared_ptr<client::Heap> heap_;
  Channel channel_;
  mutable std::mutex lifecycle_;  // of the engine and its monitor
  std::unique_ptr<client::EngineProcess> engine_;
  std::unique_ptr<client::Monitor> monitor_;
  std::unique_ptr<client::ConnectionPool> pool_;  // where matrices travel
  const std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
  client::Ledger ledger_;
  client::Streams streams_;
};

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
    await_verdict();
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
  return std::make_shared<client::Heap>(options.region_bytes, options.guest_arena_bytes);
}

void SessionImpl::end_generation() {
  monitor_.reset();
  engine_.reset();
}

// A guest that is going down has closed its connection before it has ended: then it is tried again.
void SessionImpl::start() {
  const Channel::Deadline deadline = deadline_after(kDeviceLimitS);
  for (;;) {
    try {
      return start_once();
    } catch (const DeviceLost&) {
      if (!options_.guest || region::Clock::now() >= deadline) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

// A fresh generation: an engine where the session has its own, then the way to it.
void SessionImpl::start_once() {
  end_generation();
  if (!options_.server.empty() && options_.region_path.empty()) return start_pool();
  if (options_.server.empty()) start_engine();
  client::Watched watched{engine_.get(), nullptr};
  std::unique_ptr<client::Port> port;
  if (options_.server.empty() && !options_.guest) {
    port = std::make_unique<client::RingPort>(heap_->region(), 0);
  } else {
    auto to_server = connect_server();
    watched.connection = &to_server->connection();
    port = std::move(to_server);
  }
  channel_.set_on_nonsense([watched] {
    if (watched.engine != nullptr) watched.engine->kill();
    if (watched.connection != nullptr) watched.connection->hang_up();
  });
  channel_.begin(std::move(port));
  monitor_ =
      std::make_unique<client::Monitor>(watched, channel_, heap_->region(), options_.timeout_s);
  if (watched.connection != nullptr) await_device(deadline_after(kDeviceLimitS));
}

void SessionImpl::start_pool() {
  pool_ = std::make_unique<client::ConnectionPool>(client::parse_address(options_.server),
                                                   options_.connections);
  pool_->checkout(deadline_after(options_.timeout_s))->give_back();
}

void SessionImpl::start_engine() {
  heap_->region().begin_generation();
  engine_ = std::make_unique<client::EngineProcess>(options_, heap_->region());
  ledger_.count_start();
}

std::unique_ptr<client::ServerPort> SessionImpl::connect_server() {
  const std::string address =
      options_.guest ? options_.guest(heap_->region().fd()) : options_.server;
  return std::make_unique<client::ServerPort>(client::parse_address(address),
                                              deadline_after(options_.timeout_s));
}

// The device in the guest connects to a new engine by itself, in a moment.
void SessionImpl::await_device(Channel::Deadline deadline) {
  const Channel::Deadline answered = deadline + kAnswerGrace;
  for (;;) {
    shmgemm_command command{};
    command.op = SHMGEMM_OP_NOOP;
    command.flags = SHMGEMM_FLAG_FLUSH;
    const shmgemm_completion completion =
        channel_.wait(channel_.submit(command, false, answered), answered, region::Expect::kShort);
    if (completion.status == SHMGEMM_STATUS_OK) return;
    if (region::Clock::now() >= deadline) {
      throw DeviceLost(std::string("the device server has no device: ") +
                       shmgemm_status_text(completion.status));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// Why there is no device any more is for the monitor to find out.
void SessionImpl::await_verdict() const {
  for (int i = 0; i < 100 && !channel_.failed(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

shmgemm_completion SessionImpl::run(const shmgemm_command& command, region::Expect expect) {
  try {
    const std::uint64_t id = channel_.submit(command, false, Channel::kNoDeadline);
    return channel_.wait(id, Channel::kNoDeadline, expect);
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
  keep_order(command);
  return command;
}

// What its stream waits for: the first as `after`, each other one as a NOOP before it in the
// stream.
void SessionImpl::keep_order(shmgemm_command& command) {
  for (const client::SentOp& op : streams_.take_dependencies(command.stream, channel_)) {
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
    channel_.abandon(channel_.submit(noop, false, Channel::kNoDeadline), nullptr);
  }
}

shmgemm_completion SessionImpl::gemm(const GemmCall& call) {
  ready();
  check_product(call);
  if (pool_) return gemm_inline(call);
  client::InFlight product(*heap_, ledger_, call);
  shmgemm_command command = command_of(product);
  command.flags |= SHMGEMM_FLAG_FLUSH;
  const bool is_long = client::macs_of(call) > kLongMacs;
  const shmgemm_completion completion =
      run(command, is_long ? region::Expect::kLong : region::Expect::kShort);
  settle(product, completion);
  return completion;
}

void SessionImpl::settle(client::InFlight& product, const shmgemm_completion& completion) {
  if (options_.debug) log(client::text_of(product.call()), completion);
  if (completion.status != SHMGEMM_STATUS_OK) refuse(completion, client::text_of(product.call()));
  product.finish(completion);
}

client::SentOp SessionImpl::send(client::InFlight& product) {
  const shmgemm_command command = command_of(product);
  try {
    const client::SentOp op{&channel_, channel_.submit(command, false, Channel::kNoDeadline)};
    streams_.sent(command.stream, op);
    return op;
  } catch (const Closed&) {
    throw_closed();
  }
}

std::vector<shmgemm_completion> SessionImpl::gemm_batch(const std::vector<GemmCall>& calls) {
  std::vector<shmgemm_completion> completions;
  for (const GemmCall& call : calls) check_product(call);
  ready();
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

// A FLUSH op behind them stands for them all.
std::vector<shmgemm_completion> SessionImpl::send_together(
    const std::vector<std::unique_ptr<client::InFlight>>& products) {
  std::vector<shmgemm_command> commands;
  for (const auto& product : products) commands.push_back(command_of(*product));
  shmgemm_command flush{};
  flush.op = SHMGEMM_OP_FLUSH;
  commands.push_back(flush);
  std::vector<shmgemm_completion> completions;
  std::exception_ptr error;
  try {
    channel_.submit(commands.data(), commands.size(), Channel::kNoDeadline);
    channel_.wait(commands.back().id, Channel::kNoDeadline, region::Expect::kShort);
    for (std::size_t i = 0; i < products.size(); ++i) {
      completions.push_back(
          channel_.wait(commands[i].id, Channel::kNoDeadline, region::Expect::kShort));
    }
  } catch (...) {
    // Whatever is still under way keeps its blocks until it was answered.
    for (std::size_t i = completions.size(); i < commands.size(); ++i) {
      if (commands[i].id != 0) channel_.abandon(commands[i].id, nullptr);
    }
    throw;
  }
  for (std::size_t i = 0; i < products.size(); ++i) {
    try {
      settle(*products[i], completions[i]);
    } catch (const Error&) {
      if (!error) error = std::current_exception();
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
  ready_for_commands(name);
  if (command.device >= options_.devices) refuse_device(command.device, name);
  const shmgemm_completion completion = run(command, region::Expect::kShort);
  if (options_.debug) log(name, completion);
  if (completion.status != SHMGEMM_STATUS_OK) refuse(completion, name);
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
  return info;
}

Stats SessionImpl::stats() const {
  Stats stats = ledger_.totals();
  stats.commands = channel_.commands();
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
  impl_->ready();
  impl_->check_product(call);
  if (impl_->inline_only()) return std::make_shared<DoneProduct>(impl_->gemm(call));
  auto product = std::make_shared<client::InFlight>(impl_->heap(), impl_->ledger(), call);
  const client::SentOp op = impl_->send(*product);
  return std::make_shared<SentProduct>(shared_from_this(), *impl_, std::move(product), op);
}

std::vector<shmgemm_completion> Session::gemm_batch(const std::vector<GemmCall>& calls) {
  return impl_->gemm_batch(calls);
}

StreamMark Session::mark(std::uint32_t stream) const {
  const client::SentOp op = impl_->streams().last(stream);
  return {op.channel, op.id};
}

void Session::wait_for(std::uint32_t stream, const StreamMark& mark) {
  if (impl_->closed()) throw_closed();
  impl_->streams().wait(stream, {static_cast<Channel*>(mark.channel), mark.id});
}

bool Session::reached(const StreamMark& mark) {
  if (impl_->closed()) throw_closed();
  return mark.channel == nullptr || static_cast<Channel*>(mark.channel)->settled(mark.id);
}

bool Session::await(const StreamMark& mark, double timeout_s) {
  if (impl_->closed()) throw_closed();
  if (mark.channel == nullptr) return true;
  return static_cast<Channel*>(mark.channel)
      ->await(mark.id, limit_after(timeout_s), region::Expect::kShort);
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

shmgemm_completion Session::flush() {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_FLUSH;
  return impl_->call(command, "FLUSH");
}

void Session::reset(std::uint8_t device) {
  shmgemm_command command{};
  command.op = SHMGEMM_OP_RESET;
  command.flags = SHMGEMM_FLAG_FLUSH;
  command.device = device;
  impl_->call(command, "RESET");
}

shmgemm_info Session::info(std::uint8_t device) { return impl_->info(device); }

std::uint64_t Session::submit(shmgemm_command command) {
  impl_->ready_for_commands("a command");
  return impl_->channel().submit(command, true, Channel::kNoDeadline);
}

shmgemm_completion Session::wait(std::uint64_t id, double timeout_s) {
  if (impl_->closed()) throw_closed();
  return impl_->channel().wait(id, deadline_after(timeout_s), region::Expect::kShort);
}

Stats Session::stats() const { return impl_->stats(); }
void Session::set_profiling(bool on) { impl_->ledger().set_profiling(on); }
std::vector<OpRecord> Session::take_records() { return impl_->ledger().take_records(); }
void Session::close() {
  impl_->close();
  client::forget_use();
}
bool Session::closed() const { return impl_->closed(); }
int Session::engine_pid() const { return impl_->engine_pid(); }
int Session::region_fd() const { return impl_->heap().region().fd(); }
std::uint32_t Session::generation() const { return impl_->heap().region().generation(); }

}  // namespace shmgemm
