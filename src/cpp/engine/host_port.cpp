#include "engine/host_port.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "abi/shmgemm_validate.h"
#include "engine/report.h"

namespace shmgemm::engine {
namespace {

bool is_served(const shmgemm_command& command) {
  switch (command.op) {
    case SHMGEMM_OP_NOOP:
    case SHMGEMM_OP_ECHO:
    case SHMGEMM_OP_RESET:
    case SHMGEMM_OP_GET_INFO:
    case SHMGEMM_OP_FLUSH:
      return true;
    case SHMGEMM_OP_GEMM:
      return compute::supports(static_cast<compute::Dtype>(command.dtype_in),
                               static_cast<compute::Dtype>(command.dtype_out));
    default:
      return false;
  }
}

compute::Gemm product_of(const shmgemm_command& command, std::byte* base) {
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

HostPort::QueuePair::QueuePair(region::Region& region, std::uint32_t index)
    : commands(region.queue_pair(index)->commands, SHMGEMM_RING_SLOTS),
      completions(region.queue_pair(index)->completions, SHMGEMM_RING_SLOTS),
      client(region.client(index)) {}

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
        setup.hardware, DeviceHost{events_, owner, setup.memory, setup.observer, on_end,
                                   options_.log, options_.limits, options_.last_cycle}));
  }
}

void HostPort::meet_hosts() {
  limits_.heap_begin = region_->heap_begin();
  limits_.heap_end = region_->heap_end();
  limits_.generation = region_->generation();
  waiter_.emplace(region_->engine());
  for (std::uint32_t i = 0; i < region_->queue_pairs(); ++i) {
    pairs_.push_back(std::make_unique<QueuePair>(*region_, i));
  }
}

void HostPort::enqueue(Op* op) {
  Device& device = *devices_[op->command.device];
  device.enqueue(op);
  device.advance();
}

bool HostPort::poll() {
  for (const auto& device : devices_) device->drop_retired();
  bool took = false;
  const auto pairs = static_cast<std::uint32_t>(pairs_.size());
  for (std::uint32_t i = 0; i < pairs && !flushing(); ++i) {
    const std::uint32_t index = (turn_ + i) % pairs;
    shmgemm_command command;
    while (!flushing() && pairs_[index]->commands.poll(command)) {
      took = true;
      take(index, command);
      if (flushing()) turn_ = (index + 1) % pairs;
    }
  }
  return took;
}

void HostPort::run_next() {
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
  for (const auto& pair : pairs_) region::wake(pair->client);
}

void HostPort::stop() {
  __atomic_store_n(&stopped_, true, __ATOMIC_SEQ_CST);
  region::wake(region_->engine());
}

bool HostPort::ready() const {
  if (stopped()) return true;
  return std::any_of(pairs_.begin(), pairs_.end(),
                     [](const auto& pair) { return pair->commands.ready(); });
}

void HostPort::take(std::uint32_t index, const shmgemm_command& command) {
  QueuePair& pair = *pairs_[index];
  const shmgemm_status status = check(pair, command);
  if (status != SHMGEMM_STATUS_OK) return reject(pair, command, status);
  if (command.op == SHMGEMM_OP_FLUSH) return begin_flush_op(index, command);
  accept(index, command);
}

shmgemm_status HostPort::check(const QueuePair& pair, const shmgemm_command& command) const {
  const shmgemm_status status = shmgemm_validate_command(&command, &limits_);
  if (status != SHMGEMM_STATUS_OK) return status;
  if (pair.ops.find(static_cast<std::uint32_t>(command.id)) != nullptr) {
    return SHMGEMM_STATUS_DUPLICATE_ID;
  }
  if (pair.ops.full()) return SHMGEMM_STATUS_BUSY;
  if (!is_served(command)) return SHMGEMM_STATUS_UNSUPPORTED;
  // A FLUSH takes no time; refused, it would leave what is in flight without an answer.
  if (command.op != SHMGEMM_OP_FLUSH &&
      (events_.now() > options_.last_cycle || command.release_cycles > options_.last_cycle)) {
    options_.log("simulated time is at cycle " + std::to_string(events_.now()) +
                 ", release time at " + std::to_string(command.release_cycles) + ": past cycle " +
                 std::to_string(options_.last_cycle) + " no op is accepted");
    return SHMGEMM_STATUS_ERROR;
  }
  return SHMGEMM_STATUS_OK;
}

shmgemm_completion HostPort::answer(const shmgemm_command& command, shmgemm_status status) const {
  shmgemm_completion completion{};
  completion.id = command.id;
  completion.generation = limits_.generation;
  completion.status = static_cast<std::uint16_t>(status);
  completion.device = command.device;
  completion.start_cycles = events_.now();
  completion.end_cycles = events_.now();
  return completion;
}

void HostPort::reject(QueuePair& pair, const shmgemm_command& command, shmgemm_status status) {
  if (command.device < devices_.size()) devices_[command.device]->count_reject();
  publish(pair, answer(command, status));
}

void HostPort::accept(std::uint32_t index, const shmgemm_command& command) {
  QueuePair& pair = *pairs_[index];
  if (command.op == SHMGEMM_OP_GEMM) compute(command);
  Op* op = pair.ops.add(command, index);
  // A client that never flushes would otherwise fill the table and wait for ever.
  if ((command.flags & SHMGEMM_FLAG_FLUSH) != 0 || pair.ops.full()) {
    flush_ = Flush{true, index, false, Dependency{op, op->ticket}, false, {}};
  }
  Device& device = *devices_[command.device];
  device.enqueue(op);
  device.advance();
}

void HostPort::begin_flush_op(std::uint32_t index, const shmgemm_command& command) {
  const Op* target = command.after == 0 ? nullptr : pairs_[index]->ops.find(command.after);
  const Dependency dependency =
      target == nullptr ? Dependency{} : Dependency{target, target->ticket};
  flush_ = Flush{true, index, command.after == 0, dependency, true, command};
  settle_flush();
}

// Ends the flush where its target has ended, and answers it where it was a FLUSH op.
void HostPort::settle_flush() {
  if (!flush_.active) return;
  QueuePair& pair = *pairs_[flush_.pair];
  if (flush_.all ? !pair.ops.empty() : !flush_.target.ended()) return;
  flush_.active = false;
  if (flush_.is_op) publish(pair, answer(flush_.command, SHMGEMM_STATUS_OK));
}

void HostPort::compute(const shmgemm_command& command) const {
  compute::Gemm gemm = product_of(command, region_->base());
  if ((command.flags & SHMGEMM_FLAG_BIT_ACCURATE) != 0) {
    gemm.accumulation_length = devices_[command.device]->accumulation_length(command);
  }
  options_.compute(gemm);
}

void HostPort::ended(Op* op, shmgemm_status status, const model::GemmTiming& timing) {
  if (op->queue_pair == kNoQueuePair) {
    options_.returned(op, status, timing);
    return advance_devices();
  }
  const shmgemm_command& command = op->command;
  QueuePair& pair = *pairs_[op->queue_pair];
  shmgemm_completion completion = answer(command, status);
  completion.start_cycles = op->start;
  completion.busy_cycles = timing.busy;
  completion.fill_drain_cycles = timing.fill_drain;
  completion.memory_stall_cycles = timing.memory_stall;
  if (command.op == SHMGEMM_OP_ECHO) {
    completion.busy_cycles = command.arg[0];
    completion.fill_drain_cycles = command.arg[1];
    completion.memory_stall_cycles = command.arg[2];
  } else if (command.op == SHMGEMM_OP_GET_INFO) {
    completion.report_bytes = write_info(command);
  } else if (command.report != 0 && status == SHMGEMM_STATUS_OK) {
    completion.report_bytes =
        write_gemm_report(region_->base() + std::uint64_t{command.report} * SHMGEMM_BLOCK_ALIGN,
                          timing, devices_[command.device]->peak_macs_per_cycle());
  }
  pair.ops.remove(op);
  publish(pair, completion);
  settle_flush();
  advance_devices();
}

void HostPort::publish(QueuePair& pair, const shmgemm_completion& completion) {
  pair.completions.publish(completion);
  region::wake_if_sleeping(pair.client);
}

std::uint32_t HostPort::write_info(const shmgemm_command& command) const {
  const Device& device = *devices_[command.device];
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
  copy_text(info.engine, options_.engine_name);
  copy_text(info.model, device.hardware().model().name);
  copy_text(info.version, SHMGEMM_VERSION);
  std::memcpy(region_->base() + std::uint64_t{command.report} * SHMGEMM_BLOCK_ALIGN, &info,
              sizeof info);
  return sizeof info;
}

void HostPort::advance_devices() {
  for (const auto& device : devices_) device->advance();
}

}  // namespace shmgemm::engine
