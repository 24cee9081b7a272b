#include "engine/device.h"

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "abi/shmgemm_validate.h"

namespace shmgemm::engine {
namespace {

model::GemmShape shape_of(const shmgemm_command& command) {
  const std::uint32_t in = shmgemm_dtype_bytes(command.dtype_in);
  const std::uint32_t out = shmgemm_dtype_bytes(command.dtype_out);
  model::GemmShape shape;
  shape.m = command.m;
  shape.n = command.n;
  shape.k = command.k;
  shape.batch = command.batch;
  shape.input_bytes = in;
  shape.output_bytes = out;
  shape.bias = (command.flags & SHMGEMM_FLAG_BIAS) != 0;
  shape.accumulate = (command.flags & SHMGEMM_FLAG_ACCUMULATE) != 0;
  shape.timeline = command.report != 0;
  shape.placement[model::kA] = {command.a, std::uint64_t{command.lda} * in, command.stride_a * in,
                                (command.flags & SHMGEMM_FLAG_TRANSPOSE_A) != 0};
  shape.placement[model::kB] = {command.b, std::uint64_t{command.ldb} * in, command.stride_b * in,
                                (command.flags & SHMGEMM_FLAG_TRANSPOSE_B) != 0};
  shape.placement[model::kC] = {command.c, std::uint64_t{command.ldc} * out, command.stride_c * out,
                                false};
  shape.placement[model::kBias] = {command.bias, 0, 0, false};
  return shape;
}

}  // namespace

Device::Device(const model::Hardware& hardware, DeviceHost host)
    : hardware_(hardware),
      host_(std::move(host)),
      instance_(make_instance()),
      peak_macs_per_cycle_(instance_->model->peak_macs_per_cycle()),
      timing_(hardware_, peak_macs_per_cycle_),
      supervision_(host_.limits) {}

std::unique_ptr<Device::Instance> Device::make_instance() {
  auto instance = std::make_unique<Instance>(
      Instance{Lane(host_.events, host_.owner, host_.last_cycle), nullptr});
  instance->model = hardware_.create_model(instance->lane, host_.memory);
  return instance;
}

void Device::retire() {
  if (!instance_) return;
  instance_->lane.close();
  if (host_.observer != nullptr) host_.observer->retired();
  retired_.push_back(std::move(instance_));
}

void Device::enqueue(Op* op) {
  queue_.push_back(op);
  if (host_.observer != nullptr) host_.observer->queued(queue_.size() + busy());
}

void Device::count_reject() {
  ++counters_.rejects;
  if (host_.observer != nullptr) host_.observer->rejected();
}

void Device::advance() {
  if (advancing_) return;
  advancing_ = true;
  while (host_.running() && !busy() && !queue_.empty() && may_start(queue_.front())) {
    Op* op = queue_.front();
    queue_.pop_front();
    start(op);
  }
  advancing_ = false;
}

// A model that fails here fails the op when it is started.
std::uint64_t Device::accumulation_length(const shmgemm_command& gemm) {
  try {
    if (!instance_) instance_ = make_instance();
    return std::max<std::uint64_t>(1, instance_->model->accumulation_length(shape_of(gemm)));
  } catch (...) {
    return gemm.k;
  }
}

bool Device::may_start(Op* op) {
  if (!op->after.ended() || !op->previous.ended()) return false;
  const model::Cycle release = op->command.release_cycles;
  if (release <= host_.events.now()) return true;
  if (!op->alarm_set) {
    op->alarm_set = true;
    host_.events.at(release, [this] { advance(); });
  }
  return false;
}

void Device::start(Op* op) {
  op->start = host_.events.now();
  shmgemm_status status = SHMGEMM_STATUS_OK;
  switch (op->command.op) {
    case SHMGEMM_OP_GEMM:
      return start_product(op);
    case SHMGEMM_OP_COMPUTE:
    case SHMGEMM_OP_READ:
    case SHMGEMM_OP_WRITE:
      return start_timed(op);
    case SHMGEMM_OP_CONFIGURE:
      status = configure(op->command);
      break;
    case SHMGEMM_OP_RESET:
      reset();
      break;
    default:
      break;
  }
  tell_ended(op, status, model::GemmTiming{});
}

shmgemm_status Device::configure(const shmgemm_command& command) {
  if (command.arg[0] != SHMGEMM_CONFIGURE_MAX_COMPUTE_UNITS) return SHMGEMM_STATUS_BAD_ARGUMENT;
  configuration_.max_compute_units = command.arg[1];
  return SHMGEMM_STATUS_OK;
}

void Device::reset() {
  counters_ = DeviceCounters{};
  configuration_ = DeviceConfiguration{};
  memory_.zero();
}

// Its data move when it starts, as a product's values are computed then.
shmgemm_status Device::move(const Op& op) {
  const std::uint64_t address = op.command.arg[0], bytes = op.command.arg[1];
  if (!DeviceMemory::contains(address, bytes)) return SHMGEMM_STATUS_OUT_OF_BOUNDS;
  try {
    if (op.command.op == SHMGEMM_OP_READ) {
      memory_.read(address, op.data, bytes);
    } else {
      memory_.write(address, op.data, bytes);
    }
  } catch (const std::bad_alloc&) {
    host_.log("the machine has no room for a device's memory");
    return SHMGEMM_STATUS_ERROR;
  }
  return SHMGEMM_STATUS_OK;
}

void Device::start_timed(Op* op) {
  const shmgemm_command& command = op->command;
  const bool computes = command.op == SHMGEMM_OP_COMPUTE;
  const auto timing = computes ? timing_.compute(command.arg[0]) : timing_.transfer(command.arg[1]);
  shmgemm_status status = SHMGEMM_STATUS_OK;
  if (computes && (command.arg[1] != 0 || command.arg[0] > configuration_.max_compute_units)) {
    status = SHMGEMM_STATUS_BAD_ARGUMENT;
  } else if (timing.total() > host_.last_cycle - std::min(host_.last_cycle, op->start)) {
    status = SHMGEMM_STATUS_UNSUPPORTED;
    host_.log("an op of " + std::to_string(timing.total()) + " cycles: simulated time ends before");
  } else if (!computes) {
    status = move(*op);
  }
  if (status != SHMGEMM_STATUS_OK) {
    ++counters_.rejects;
    return tell_ended(op, status, model::GemmTiming{});
  }
  timed_ = op;
  host_.events.at(op->start + timing.total(), [this, timing] { end_timed(timing); });
}

void Device::end_timed(const model::GemmTiming& timing) {
  ++counters_.ops;
  counters_.busy_cycles += timing.busy;
  tell_ended(std::exchange(timed_, nullptr), SHMGEMM_STATUS_OK, timing);
}

void Device::tell_ended(Op* op, shmgemm_status status, const model::GemmTiming& timing) {
  if (host_.observer != nullptr) host_.observer->ended(*op, status, timing);
  host_.ended(op, status, timing);
}

void Device::start_product(Op* op) {
  try {
    host_.compute(*op);
  } catch (...) {
    host_.log("the values of a product: " + model::current_exception_text());
    ++counters_.rejects;
    return tell_ended(op, SHMGEMM_STATUS_ERROR, model::GemmTiming{});
  }
  if (start_repeated(op)) return;
  op_ = op;
  const std::uint64_t run = ++runs_;
  supervision_.begin(host_.events.now());
  try {
    if (!instance_) instance_ = make_instance();
    instance_->model->start(shape_of(op->command),
                            [this, run](const model::GemmTiming& timing) { end(run, timing); });
  } catch (const std::overflow_error&) {  // by contract, and it has begun nothing
    end_badly(SHMGEMM_STATUS_UNSUPPORTED, "refused: " + model::current_exception_text());
  } catch (const std::invalid_argument&) {
    end_badly(SHMGEMM_STATUS_UNSUPPORTED, "refused: " + model::current_exception_text());
  } catch (...) {
    fail(model::current_exception_text());
  }
}

// One whose timing is known: it ends when the one before it did.
bool Device::start_repeated(Op* op) {
  if (op->command.report != 0) return false;
  const model::GemmTiming* const timing = memo_.find(shape_of(op->command));
  if (timing == nullptr || timing->total() > host_.last_cycle - op->start) return false;
  timed_ = op;
  host_.events.at(op->start + timing->total(), [this, timing] { end_timed(*timing); });
  return true;
}

void Device::end(std::uint64_t run, const model::GemmTiming& timing) {
  if (op_ == nullptr || run != runs_) {
    throw model::ModelError("it called done() for a GEMM that has ended");
  }
  supervision_.check_end(timing, host_.events.now());
  if (op_->command.report == 0 && instance_ && instance_->model->repeats()) {
    memo_.remember(shape_of(op_->command), timing);
  }
  ++counters_.ops;
  counters_.busy_cycles += timing.busy;
  tell_ended(std::exchange(op_, nullptr), SHMGEMM_STATUS_OK, timing);
}

void Device::count_event() {
  if (op_ != nullptr) supervision_.count_event(host_.events.now());
}

void Device::fail(const std::string& why) {
  retire();
  end_badly(SHMGEMM_STATUS_ERROR, "failed: " + why);
}

void Device::end_badly(shmgemm_status status, const std::string& why) {
  const std::string what = op_ != nullptr ? ", " + model::text_of(shape_of(op_->command)) : "";
  host_.log("timing model \"" + hardware_.model().name + "\"" + what + ": " + why);
  if (op_ == nullptr) return;  // it had called done() before
  ++counters_.rejects;
  tell_ended(std::exchange(op_, nullptr), status, model::GemmTiming{});
}

}  // namespace shmgemm::engine
