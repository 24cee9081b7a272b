#include "engine/host_port.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "abi/shmgemm_validate.h"
#include "engine/device_memory.h"
#include "engine/older_records.h"
#include "engine/queue_pair.h"
#include "engine/report.h"

namespace shmgemm::engine {
namespace {

bool is_served(const shmgemm_command& command) {
  return command.op != SHMGEMM_OP_GEMM ||
         compute::supports(static_cast<compute::Dtype>(command.dtype_in),
                           static_cast<compute::Dtype>(command.dtype_out));
}

bool flushes(const shmgemm_command& command) {
  return command.op == SHMGEMM_OP_FLUSH || (command.flags & SHMGEMM_FLAG_FLUSH) != 0;
}

compute::Gemm gemm_of(const shmgemm_command& command, std::byte* base) {
  compute::Gemm gemm;
  gemm.m = command.m;
  gemm.n = command.n;
  gemm.k = command.k;
  gemm.batch = command.batch;
  gemm.lda = command.lda;
  gemm.ldb = command.ldb;
  gemm.ldc = command.ldc;
  gemm.stride_a = command.stride_a;
  gemm.stride_b = command.stride_b;
  gemm.stride_c = command.stride_c;
  gemm.a = base + command.a;
  gemm.b = base + command.b;
  gemm.c = base + command.c;
  gemm.bias = (command.flags & SHMGEMM_FLAG_BIAS) != 0 ? base + command.bias : nullptr;
  gemm.input = static_cast<compute::Dtype>(command.dtype_in);
  gemm.output = static_cast<compute::Dtype>(command.dtype_out);
  gemm.transpose_a = (command.flags & SHMGEMM_FLAG_TRANSPOSE_A) != 0;
  gemm.transpose_b = (command.flags & SHMGEMM_FLAG_TRANSPOSE_B) != 0;
  gemm.accumulate = (command.flags & SHMGEMM_FLAG_ACCUMULATE) != 0;
  return gemm;
}

// Simulated time counts cycles of one clock.
std::uint64_t common_clock(const std::vector<DeviceSetup>& setups) {
  if (setups.empty()) throw std::invalid_argument("there is no device to serve");
  const std::uint64_t clock_hz = setups[0].hardware.clock_hz();
  for (std::size_t i = 1; i < setups.size(); ++i) {
    if (setups[i].hardware.clock_hz() == clock_hz) continue;
    throw std::invalid_argument(
        "device " + std::to_string(i) +
        " has clock = " + setups[i].hardware.parameters().text().at("clock") + ", device 0 has " +
        setups[0].hardware.parameters().text().at("clock") +
        ": the devices of one host need one clock");
  }
  return clock_hz;
}

template <std::size_t size>
void copy_text(char (&to)[size], const std::string& from) {
  std::memcpy(to, from.data(), std::min(from.size(), size - 1));
}

}  // namespace

HostPort::HostPort(std::shared_ptr<region::Region> region, const std::vector<DeviceSetup>& setups,
                   model::EventQueue& events, HostPortOptions options)
    : region_(std::move(region)),
      events_(events),
      options_(std::move(options)),
      clock_hz_(common_clock(setups)),
      limits_{0, 0, 0, static_cast<std::uint32_t>(setups.size())} {
  if (region_) meet_hosts();
  for (const DeviceSetup& setup : setups) {
    const auto owner = static_cast<std::uint32_t>(devices_.size()) + 1;
    const auto on_end = [this](Op* op, shmgemm_status status, const model::GemmTiming& timing) {
      ended(op, status, timing);
    };
    devices_.push_back(std::make_unique<Device>(
        setup.hardware, DeviceHost{events_, owner, setup.memory, setup.observer,
                                   [this] { return running(); }, [this](Op& op) { compute(op); },
                                   on_end, options_.log, options_.limits, options_.last_cycle}));
  }
}

void HostPort::meet_hosts() {
  limits_.heap_begin = region_->heap_begin();
  limits_.heap_end = region_->heap_end();
  limits_.generation = region_->generation();
  const bool has_cpu_to_spare = options_.threads < region::allowed_cpus();
  waiter_.emplace(region_->engine(),
                  has_cpu_to_spare ? region::Waiter::kYieldLong : region::Waiter::kYield);
  for (std::uint32_t i = 0; i < region_->queue_pairs(); ++i) {
    if (region_->client_arena(i).bytes > 0) continue;  // connects when it has a client
    connections_.push_back(std::make_shared<QueuePair>(*region_, i));
  }
}

void HostPort::enqueue(Op* op) {
  Device& device = *devices_[op->command.device];
  device.enqueue(op);
  device.advance();
}

bool HostPort::poll() {
  for (const auto& device : devices_) device->drop_retired();
  if (__atomic_load_n(&has_new_, __ATOMIC_SEQ_CST)) welcome();
  dismiss();
  bool took = false;
  const std::size_t connections = connections_.size();
  for (std::size_t i = 0; i < connections && !flushing(); ++i) {
    const std::size_t index = (turn_ + i) % connections;
    took |= take_turn(*connections_[index]);
    if (flushing()) turn_ = (index + 1) % connections;
  }
  return took || flushing() || compute_ahead();
}

// Up to a command that flushes, whether or not that is answered at once, and no more than a ring
// holds: who sends without end does not keep the others from their turn.
bool HostPort::take_turn(Connection& connection) {
  Arrived arrived;
  for (std::uint32_t taken = 0; taken < SHMGEMM_RING_SLOTS; ++taken) {
    if (!connection.take(arrived)) return taken > 0;
    take(connection, arrived);
    if (flushing() || flushes(arrived.command)) break;
  }
  return true;
}

void HostPort::connect(std::shared_ptr<Connection> connection) {
  {
    const std::lock_guard<std::mutex> lock(new_mutex_);
    new_.push_back(std::move(connection));
    __atomic_store_n(&has_new_, true, __ATOMIC_SEQ_CST);
  }
  ring();
}

void HostPort::welcome() {
  const std::lock_guard<std::mutex> lock(new_mutex_);
  std::move(new_.begin(), new_.end(), std::back_inserter(connections_));
  new_.clear();
  __atomic_store_n(&has_new_, false, __ATOMIC_SEQ_CST);
}

// Those that are gone. What they have at work ends unanswered, and they stay until it has.
void HostPort::dismiss() {
  const auto is_idle = [](const auto& connection) { return connection->ops.empty(); };
  leaving_.erase(std::remove_if(leaving_.begin(), leaving_.end(), is_idle), leaving_.end());
  const auto is_here = [](const auto& connection) { return !connection->gone(); };
  if (std::all_of(connections_.begin(), connections_.end(), is_here)) return;
  const auto kept = std::stable_partition(connections_.begin(), connections_.end(), is_here);
  for (auto gone = kept; gone != connections_.end(); ++gone) {
    dismiss(**gone);
    if (!(*gone)->ops.empty()) leaving_.push_back(*gone);
  }
  connections_.erase(kept, connections_.end());
}

bool HostPort::is_awaited(const Connections& leaving) {
  return std::any_of(leaving.begin(), leaving.end(),
                     [](const auto& connection) { return !connection->ops.empty(); });
}

void HostPort::dismiss(Connection& connection) {
  if (flush_.connection == &connection) flush_ = Flush{};
  ahead_.forget(connection);
  for (const auto& device : devices_) {
    device->drop_queued(&connection, [&connection](Op* op) { connection.ops.remove(op); });
  }
}

void HostPort::run_next() {
  if (flush_.active && flush_.connection->gone()) {  // nobody waits for it any more
    flush_ = Flush{};
    return;
  }
  if (events_.empty()) return fail_forgotten_op();
  const std::uint32_t owner = events_.next_owner();
  if (owner == 0) return events_.run_next();
  Device& device = *devices_[owner - 1];
  try {
    events_.run_next();
    device.count_event();
  } catch (...) {
    device.fail(model::current_exception_text());
  }
}

bool HostPort::busy() const {
  return std::any_of(devices_.begin(), devices_.end(),
                     [](const auto& device) { return device->busy(); });
}

void HostPort::fail_forgotten_op() {
  for (const auto& device : devices_) {
    if (device->busy()) return device->fail(model::kNeverDone);
  }
  throw std::logic_error("a flush waits for an op, but no event is due and no device is busy");
}

void HostPort::wait(region::Nanoseconds limit) {
  waiter_->wait([this] { return ready(); }, limit);
}

void HostPort::wake_clients() {
  for (const auto& connection : connections_) connection->wake();
}

void HostPort::stop() {
  __atomic_store_n(&stopped_, true, __ATOMIC_SEQ_CST);
  region::wake(region_->engine());
}

void HostPort::ring() const { region::wake_if_sleeping(region_->engine()); }

bool HostPort::ready() const {
  if (stopped() || flushing() || __atomic_load_n(&has_new_, __ATOMIC_SEQ_CST)) return true;
  return std::any_of(connections_.begin(), connections_.end(), [](const auto& connection) {
    return connection->ready() || connection->gone();
  });
}

void HostPort::take(Connection& connection, Arrived& arrived) {
  const shmgemm_status status = check(connection, arrived);
  if (status != SHMGEMM_STATUS_OK) return refuse(connection, arrived, status);
  if (arrived.command.op == SHMGEMM_OP_FLUSH) return begin_flush_op(connection, arrived);
  accept(connection, arrived);
}

shmgemm_status HostPort::check(const Connection& connection, Arrived& arrived) const {
  shmgemm_command& command = arrived.command;
  if (arrived.request != nullptr && command.device >= devices_.size()) {
    return SHMGEMM_STATUS_NO_DEVICE;
  }
  const shmgemm_status status = arrived.request != nullptr
                                    ? command_of(arrived.request->asked, command)
                                    : shmgemm_validate_command(&command, &limits_);
  if (status != SHMGEMM_STATUS_OK) return status;
  if (command.id != 0 && connection.ops.find(static_cast<std::uint32_t>(command.id)) != nullptr) {
    return SHMGEMM_STATUS_DUPLICATE_ID;
  }
  if (connection.ops.full()) return SHMGEMM_STATUS_BUSY;
  if (!is_served(command)) return SHMGEMM_STATUS_UNSUPPORTED;
  return check_time(command);
}

// A FLUSH takes no time; refused, it would leave what is in flight without an answer.
shmgemm_status HostPort::check_time(const shmgemm_command& command) const {
  if (command.op == SHMGEMM_OP_FLUSH ||
      (events_.now() <= options_.last_cycle && command.release_cycles <= options_.last_cycle)) {
    return SHMGEMM_STATUS_OK;
  }
  options_.log("simulated time is at cycle " + std::to_string(events_.now()) +
               ", release time at " + std::to_string(command.release_cycles) + ": past cycle " +
               std::to_string(options_.last_cycle) + " no op is accepted");
  return SHMGEMM_STATUS_ERROR;
}

shmgemm_completion HostPort::completion_of(const shmgemm_command& command,
                                           shmgemm_status status) const {
  shmgemm_completion completion{};
  completion.id = command.id;
  completion.generation = limits_.generation;
  completion.status = static_cast<std::uint16_t>(status);
  completion.device = command.device;
  completion.start_cycles = events_.now();
  completion.end_cycles = events_.now();
  return completion;
}

void HostPort::refuse(Connection& connection, const Arrived& arrived, shmgemm_status status) {
  const shmgemm_command& command = arrived.command;
  if (command.device < devices_.size()) devices_[command.device]->count_reject();
  const shmgemm_completion completion = completion_of(command, status);
  if (arrived.request != nullptr) make_answer(*arrived.request, completion, {});
  connection.answer(arrived.slot, completion);
}

void HostPort::accept(Connection& connection, const Arrived& arrived) {
  const shmgemm_command& command = arrived.command;
  Op* op = connection.ops.add(command, &connection);
  op->slot = arrived.slot;
  op->request = arrived.request;
  if (command.op == SHMGEMM_OP_READ || command.op == SHMGEMM_OP_WRITE) {
    op->data = op->request != nullptr ? data_of(*op->request) : region_->base() + command.arg[2];
  }
  devices_[command.device]->enqueue(op);
  // A client that never flushes would otherwise fill the table and wait for ever.
  if ((command.flags & SHMGEMM_FLAG_FLUSH) == 0 && !connection.ops.full()) return ahead_.add(op);
  flush_ = Flush{true, &connection, false, Dependency{op, op->ticket}, false, {}};
  compute_up_to(connection, op->ticket);
  advance_devices();
}

void HostPort::begin_flush_op(Connection& connection, const Arrived& arrived) {
  const std::uint32_t after = arrived.command.after;
  const Op* target = after == 0 ? nullptr : connection.ops.find(after);
  const Dependency dependency =
      target == nullptr ? Dependency{} : Dependency{target, target->ticket};
  flush_ = Flush{true, &connection, after == 0, dependency, true, arrived};
  compute_up_to(connection, after == 0 ? UINT64_MAX : dependency.ticket);
  settle_flush();
  advance_devices();
}

// Ends the flush where its target has ended, and answers it where it was a FLUSH op.
void HostPort::settle_flush() {
  if (!flush_.active) return;
  if (flush_.all ? !flush_.connection->ops.empty() : !flush_.target.ended()) return;
  flush_.active = false;
  if (!flush_.is_op) return;
  flush_.connection->answer(flush_.arrived.slot,
                            completion_of(flush_.arrived.command, SHMGEMM_STATUS_OK));
}

compute::Gemm HostPort::product_of(const Op& op) const {
  compute::Gemm gemm = gemm_of(op.command, region_->base());
  if ((op.command.flags & SHMGEMM_FLAG_BIT_ACCURATE) != 0) {
    gemm.accumulation_length = devices_[op.command.device]->accumulation_length(op.command);
  }
  return gemm;
}

void HostPort::compute(Op& op) {
  if (op.connection == nullptr || op.values == Values::kThere) return;  // timed alone, or ahead
  if (op.values == Values::kFailed) throw std::runtime_error("they could not be computed");
  const compute::Gemm gemm = product_of(op);
  options_.compute(&gemm, 1);
  op.values = Values::kThere;
}

void HostPort::compute_wave(const std::vector<Op*>& wave) {
  Values now = Values::kThere;
  try {
    gemms_.clear();
    for (const Op* op : wave) gemms_.push_back(product_of(*op));
    options_.compute(gemms_.data(), gemms_.size());
  } catch (...) {
    options_.log("the values of a product: " + model::current_exception_text());
    now = Values::kFailed;
  }
  for (Op* op : wave) op->values = now;
}

bool HostPort::compute_ahead() {
  if (ahead_.empty()) return false;
  const std::vector<Op*>& wave = ahead_.next();
  if (!wave.empty()) compute_wave(wave);
  return !wave.empty();
}

// What was sent before the op that the host waits for, several products at a time.
void HostPort::compute_up_to(const Connection& connection, std::uint64_t last_ticket) {
  while (!ahead_.empty()) {
    const std::vector<Op*>& wave = ahead_.next(connection, last_ticket);
    if (wave.empty()) return;
    compute_wave(wave);
  }
}

void HostPort::ended(Op* op, shmgemm_status status, const model::GemmTiming& timing) {
  Connection* const connection = op->connection;
  if (connection == nullptr) {
    options_.returned(op, status, timing);
  } else {
    if (!connection->gone()) answer(*op, status, timing);
    connection->ops.remove(op);
  }
  settle_flush();
  advance_devices();
}

void HostPort::answer(const Op& op, shmgemm_status status, const model::GemmTiming& timing) {
  const shmgemm_command& command = op.command;
  shmgemm_completion completion = completion_of(command, status);
  completion.start_cycles = op.start;
  completion.busy_cycles = timing.busy;
  completion.fill_drain_cycles = timing.fill_drain;
  completion.memory_stall_cycles = timing.memory_stall;
  shmgemm_info said{};
  std::byte* const report =
      command.report == 0 || status != SHMGEMM_STATUS_OK
          ? nullptr
          : region_->base() + std::uint64_t{command.report} * SHMGEMM_BLOCK_ALIGN;
  if (command.op == SHMGEMM_OP_ECHO) {
    completion.busy_cycles = command.arg[0];
    completion.fill_drain_cycles = command.arg[1];
    completion.memory_stall_cycles = command.arg[2];
  } else if (command.op == SHMGEMM_OP_GET_INFO) {
    said = info(command.device);
    if (report != nullptr) std::memcpy(report, &said, completion.report_bytes = sizeof said);
  } else if (report != nullptr) {
    completion.report_bytes =
        write_gemm_report(report, timing, devices_[command.device]->peak_macs_per_cycle());
  }
  if (op.request != nullptr) make_answer(*op.request, completion, said);
  op.connection->answer(op.slot, completion);
}

shmgemm_link_hello HostPort::hello() const {
  shmgemm_link_hello hello{};
  hello.magic = SHMGEMM_LINK_MAGIC;
  hello.abi_major = SHMGEMM_ABI_MAJOR;
  hello.abi_minor = SHMGEMM_ABI_MINOR;
  hello.role = SHMGEMM_LINK_ENGINE;
  hello.devices = limits_.devices;
  hello.generation = limits_.generation;
  hello.region_bytes = region_->bytes();
  const std::array<std::uint64_t, 2> id = region_->id();
  std::copy(id.begin(), id.end(), hello.region_id);
  hello.clock_hz = clock_hz_;
  return hello;
}

const model::ParameterMap& HostPort::parameters() const {
  return devices_[0]->hardware().parameters().text();
}

shmgemm_info HostPort::info(std::uint8_t index) const {
  const Device& device = *devices_[index];
  shmgemm_info info{};
  info.head.kind = SHMGEMM_REPORT_INFO;
  info.head.bytes = sizeof info;
  info.abi_major = SHMGEMM_ABI_MAJOR;
  info.abi_minor = SHMGEMM_ABI_MINOR;
  info.devices = static_cast<std::uint32_t>(devices_.size());
  info.threads = options_.threads;
  info.clock_hz = clock_hz_;
  info.peak_macs_per_cycle = device.peak_macs_per_cycle();
  info.now_cycles = events_.now();
  info.ops = device.counters().ops;
  info.rejects = device.counters().rejects;
  info.busy_cycles = device.counters().busy_cycles;
  info.dtypes = 1u << SHMGEMM_DTYPE_FLOAT32 | 1u << SHMGEMM_DTYPE_FLOAT16 |
                1u << SHMGEMM_DTYPE_BFLOAT16 | 1u << SHMGEMM_DTYPE_INT8;
  info.link_commands = link_counters_.commands;
  info.link_sojourn_ns = link_counters_.sojourn_ns;
  info.link_bytes_in = link_counters_.bytes_in;
  info.link_bytes_out = link_counters_.bytes_out;
  info.memory_bytes = DeviceMemory::kBytes;
  info.max_compute_units = device.configuration().max_compute_units;
  copy_text(info.engine, options_.engine_name);
  copy_text(info.model, device.hardware().model().name);
  copy_text(info.version, SHMGEMM_VERSION);
  return info;
}

void HostPort::advance_devices() {
  for (const auto& device : devices_) device->advance();
}

}  // namespace shmgemm::engine
