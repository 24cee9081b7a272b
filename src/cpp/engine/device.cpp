#include "engine/device.h"

#include <algorithm>
#include <stdexcept>
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
  while (!busy() && !queue_.empty() && may_start(queue_.front())) {
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
  if (op->command.op == SHMGEMM_OP_GEMM) return start_product(op);
  if (op->command.op == SHMGEMM_OP_RESET) counters_ = DeviceCounters{};
  tell_ended(op, SHMGEMM_STATUS_OK, model::GemmTiming{});
}

void Device::tell_ended(Op* op, shmgemm_status status, const model::GemmTiming& timing) {
  if (host_.observer != nullptr) host_.observer->ended(*op, status, timing);
  host_.ended(op, status, timing);
}

void Device::start_product(Op* op) {
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

void Device::end(std::uint64_t run, const model::GemmTiming& timing) {
  if (!busy() || run != runs_) {
    throw model::ModelError("it called done() for a GEMM that has ended");
  }
  supervision_.check_end(timing, host_.events.now());
  ++counters_.ops;
  counters_.busy_cycles += timing.busy;
  tell_ended(std::exchange(op_, nullptr), SHMGEMM_STATUS_OK, timing);
}

void Device::count_event() {
  if (busy()) supervision_.count_event(host_.events.now());
}

void Device::fail(const std::string& why) {
  retire();
  end_badly(SHMGEMM_STATUS_ERROR, "failed: " + why);
}

void Device::end_badly(shmgemm_status status, const std::string& why) {
  const std::string what = busy() ? ", " + model::text_of(shape_of(op_->command)) : "";
  host_.log("timing model \"" + hardware_.model().name + "\"" + what + ": " + why);
  if (!busy()) return;  // it had called done() before
  ++counters_.rejects;
  tell_ended(std::exchange(op_, nullptr), status, model::GemmTiming{});
}

}  // namespace shmgemm::engine
