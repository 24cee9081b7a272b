#include "client/session_impl.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>

#include "client/channel.h"
#include "client/current.h"
#include "client/inline_gemm.h"
#include "client/product.h"
#include "client/sent_product.h"

namespace shmgemm {
namespace {

using client::Channel;
using client::deadline_after;
using client::Lane;

constexpr std::uint64_t kMostCycles = 1ull << 62;  // simulated time ends before
constexpr unsigned kLaneShift = 56;                // an id of the raw path: lane, id in its channel

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

void log(const std::string& what, const shmgemm_completion& completion) {
  std::fprintf(stderr, "shmgemm: %s id %llu status %u cycles %llu..%llu\n", what.c_str(),
               static_cast<unsigned long long>(completion.id), unsigned{completion.status},
               static_cast<unsigned long long>(completion.start_cycles),
               static_cast<unsigned long long>(completion.end_cycles));
}

std::shared_ptr<client::Heap> heap_for(const SessionOptions& options) {
  if (!options.region_path.empty()) return client::Heap::lease(options.region_path);
  return std::make_shared<client::Heap>(options.region_bytes, options.guest_arena_bytes,
                                        options.processes, options.clients);
}

[[noreturn]] void throw_input_lost() {
  throw DeviceLost("the product that this one waits for was lost with its engine");
}

}  // namespace

void throw_closed() {
  client::forget_use();  // this thread knows now
  throw Closed("the session was closed");
}

void throw_parents() {
  throw Closed("this session belongs to the process that forked this one; open another here");
}

SessionImpl::SessionImpl(const SessionOptions& options)
    : options_((check_processes(options), options)),
      attachment_(client::attach(options_, deadline_after(options.timeout_s))),
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

void SessionImpl::start_pool() {
  pool_ = std::make_unique<client::ConnectionPool>(client::parse_address(options_.server),
                                                   options_.connections);
  pool_->checkout(deadline_after(options_.timeout_s))->give_back();
}

void SessionImpl::close() {
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

void SessionImpl::ready(std::uint8_t device) {
  if (!ours()) throw_parents();
  if (closed_->load()) throw_closed();
  Lane& lane = lane_of(device);
  if (!pool_ && lane.channel().failed()) {
    lane.revive(*closed_);
    if (closed_->load()) throw_closed();
  }
  client::note_use(closed_);
}

void SessionImpl::ready_for_commands(std::uint8_t device, const char* what) {
  ready(device);
  if (pool_) refuse_inline(what);
}

std::vector<int> SessionImpl::engine_pids() const {
  std::vector<int> pids;
  for (const auto& lane : lanes_) pids.push_back(lane->engine_pid());
  return pids;
}

std::uint64_t SessionImpl::release_cycles(std::uint64_t wanted) const {
  return std::max(wanted, now_.load(std::memory_order_relaxed));
}

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
      throw_input_lost();
    }
    inputs.push_back(after);
  }
  for (const StreamMark& op : inputs) {
    if (op.channel != &channel) {  // no engine knows of another's ops: wait for it here
      op.channel->await(op.id, Channel::kNoDeadline, region::Expect::kShort);
      const Channel::End end = op.channel->end_of(op.id);
      if (end.lost && op.channel == after.channel && op.id == after.id) throw_input_lost();
      command.release_cycles = std::max(command.release_cycles, end.cycles);
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
  product.sent_to(lane_of(call.device).generation());
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

std::shared_ptr<Future> SessionImpl::gemm_async(const GemmCall& call,
                                                std::shared_ptr<Session> session) {
  ready(call.device);
  check_product(call);
  if (pool_) return std::make_shared<DoneProduct>(gemm_inline(call));
  auto product = std::make_shared<client::InFlight>(*heap_, ledger_, call);
  const shmgemm_command command = command_of(*product);
  Lane& lane = lane_of(command.device);
  StreamMark op{&lane.channel(), 0, lane.generation()};
  product->sent_to(op.generation);
  try {
    op.id = lane.channel().submit(for_engine(command), false, Channel::kNoDeadline);
  } catch (const Closed&) {
    throw_closed();
  }
  streams_.sent(command.stream, op);
  return std::make_shared<SentProduct>(std::move(session), *this, std::move(product), op);
}

// No cycles come back: they are 0 in the answer, in the totals and in the record.
shmgemm_completion SessionImpl::gemm_inline(const GemmCall& call) {
  const std::uint64_t start_ns = client::steady_ns();
  client::inline_gemm(*pool_, call, options_.timeout_s);
  const shmgemm_completion completion{};
  const std::uint64_t bytes = client::bytes_of(call);
  ledger_.count(call, completion, bytes);
  if (ledger_.profiling()) ledger_.record(call, completion, bytes, {start_ns, scope(), 0}, nullptr);
  return completion;
}

shmgemm_completion SessionImpl::call(const shmgemm_command& command, const char* name) {
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

}  // namespace shmgemm
