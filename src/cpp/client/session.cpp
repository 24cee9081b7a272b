#include "client/session.h"

#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "abi/shmgemm_validate.h"
#include "client/attach.h"
#include "client/channel.h"
#include "client/connection_pool.h"
#include "client/current.h"
#include "client/engine_process.h"
#include "client/heap.h"
#include "client/inline_gemm.h"
#include "client/ledger.h"
#include "client/monitor.h"
#include "client/product.h"
#include "client/ring_port.h"
#include "client/server_port.h"

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

[[noreturn]] void throw_closed() {
  client::forget_use();  // this thread knows now
  throw Closed("the session was closed");
}

void log(const std::string& what, const shmgemm_completion& completion) {
  std::fprintf(stderr, "shmgemm: %s id %llu status %u cycles %llu..%llu\n", what.c_str(),
               static_cast<unsigned long long>(completion.id), unsigned{completion.status},
               static_cast<unsigned long long>(completion.start_cycles),
               static_cast<unsigned long long>(completion.end_cycles));
}

}  // namespace

class SessionImpl {
 public:
  explicit SessionImpl(const SessionOptions& options)
      : options_(options),
        attachment_(client::attach(options_, deadline_after(options.timeout_s))),
        heap_(attachment_ ? attachment_->heap() : heap_for(options)),
        channel_(heap_) {
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
    if (!ours()) {
      throw Closed("this session belongs to the process that forked this one; open another here");
    }
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
    if (attachment_) attachment_->hang_up();
    if (pool_) pool_->close();
    channel_.wait_until_unused(std::chrono::milliseconds(200));
  }

  shmgemm_completion gemm(const GemmCall& call);
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
  void end_generation();
  void start_attached();
  void start_pool();
  void start_engine();
  std::unique_ptr<client::ServerPort> connect_server();
  void await_device(Channel::Deadline deadline);
  void await_verdict() const;
  [[noreturn]] void refuse_device(std::uint8_t device, const std::string& what) const;
  [[noreturn]] void refuse_inline(const std::string& what) const;
  [[noreturn]] void refuse(const shmgemm_completion& completion, const std::string& what);

  SessionOptions options_;
  const std::unique_ptr<client::Attachment> attachment_;  // to a session of another process
  std::shared_ptr<client::Heap> heap_;
  Channel channel_;
  mutable std::mutex lifecycle_;  // of the engine and its monitor
  std::unique_ptr<client::EngineProcess> engine_;
  std::unique_ptr<client::Monitor> monitor_;
  std::unique_ptr<client::ConnectionPool> pool_;  // where matrices travel
  bool attached_ = false;                         // has been
  const std::shared_ptr<std::atomic<bool>> closed_ = std::make_shared<std::atomic<bool>>(false);
  client::Ledger ledger_;
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
  return std::make_shared<client::Heap>(options.region_bytes, options.guest_arena_bytes,
                                        options.clients);
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
  if (attachment_) return start_attached();
  if (!options_.server.empty() && options_.region_path.empty()) return start_pool();
  if (options_.server.empty()) start_engine();
  client::Watched watched;
  watched.engine = engine_.get();
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

// Once: what the engine took with it when it went is its owner's to bring back.
void SessionImpl::start_attached() {
  if (attached_) {
    throw DeviceLost("the session at " + attachment_->path() +
                     " is gone, and with it this process's part; attach again");
  }
  attached_ = true;
  client::Watched watched;
  watched.attachment = attachment_.get();
  channel_.set_on_nonsense([this] { attachment_->hang_up(); });
  channel_.begin(std::make_unique<client::RingPort>(heap_->region(), attachment_->queue_pair()));
  monitor_ =
      std::make_unique<client::Monitor>(watched, channel_, heap_->region(), options_.timeout_s);
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

shmgemm_completion SessionImpl::gemm(const GemmCall& call) {
  ready();
  if (call.device >= options_.devices) refuse_device(call.device, client::text_of(call));
  if (pool_) return gemm_inline(call);
  const bool profiling = ledger_.profiling();
  const std::uint64_t start_ns = profiling ? client::steady_ns() : 0;
  client::Product product(*heap_, call);
  const auto report = profiling ? heap_->allocate(SHMGEMM_REPORT_BYTES) : nullptr;
  shmgemm_command command = product.command();
  command.flags |= SHMGEMM_FLAG_FLUSH;
  if (options_.bit_accurate) command.flags |= SHMGEMM_FLAG_BIT_ACCURATE;
  if (report) command.report = static_cast<std::uint32_t>(report->offset() / SHMGEMM_BLOCK_ALIGN);

  const bool is_long = client::macs_of(call) > kLongMacs;
  const shmgemm_completion completion =
      run(command, is_long ? region::Expect::kLong : region::Expect::kShort);
  if (options_.debug) log(client::text_of(call), completion);
  if (completion.status != SHMGEMM_STATUS_OK) refuse(completion, client::text_of(call));
  product.fetch();
  ledger_.count(call, completion, product.bytes_copied());
  if (profiling) {
    ledger_.record(call, completion, product.bytes_copied(), start_ns, report.get());
  }
  return completion;
}

// No cycles come back: they are 0 in the answer, in the totals and in the record.
shmgemm_completion SessionImpl::gemm_inline(const GemmCall& call) {
  const std::uint64_t start_ns = client::steady_ns();
  client::inline_gemm(*pool_, call, options_.timeout_s);
  const shmgemm_completion completion{};
  const std::uint64_t bytes = client::bytes_of(call);
  ledger_.count(call, completion, bytes);
  if (ledger_.profiling()) ledger_.record(call, completion, bytes, start_ns, nullptr);
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
std::uint32_t Session::devices() const { return impl_->options().devices; }
const std::map<std::string, std::string>& Session::parameters() const {
  return impl_->options().parameters;
}
std::uint32_t Session::generation() const { return impl_->heap().region().generation(); }

}  // namespace shmgemm
