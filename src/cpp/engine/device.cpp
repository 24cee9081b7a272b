#include "engine/device.h"

#include <exception>
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

Device::Device(const model::Hardware& hardware, model::Scheduler& scheduler, model::Memory* memory,
               Ended ended)
    : scheduler_(scheduler),
      ended_(std::move(ended)),
      model_(hardware.create_model(scheduler, memory)) {}

void Device::advance() {
  if (advancing_) return;
  advancing_ = true;
  while (!busy_ && !queue_.empty() && may_start(queue_.front())) {
    Op* op = queue_.front();
    queue_.pop_front();
    start(op);
  }
  advancing_ = false;
}

bool Device::may_start(Op* op) {
  if (!op->after.ended() || !op->previous.ended()) return false;
  const model::Cycle release = op->command.release_cycles;
  if (release <= scheduler_.now()) return true;
  if (!op->alarm_set) {
    op->alarm_set = true;
    scheduler_.at(release, [this] { advance(); });
  }
  return false;
}

void Device::start(Op* op) {
  op->start = scheduler_.now();
  if (op->command.op == SHMGEMM_OP_GEMM) return start_product(op);
  if (op->command.op == SHMGEMM_OP_RESET) counters_ = DeviceCounters{};
  ended_(op, SHMGEMM_STATUS_OK, model::GemmTiming{});
}

void Device::start_product(Op* op) {
  busy_ = true;
  try {
    model_->start(shape_of(op->command),
                  [this, op](const model::GemmTiming& timing) { end(op, timing); });
  } catch (const std::exception&) {  // more cycles than 64 bits count
    busy_ = false;
    ++counters_.rejects;
    ended_(op, SHMGEMM_STATUS_UNSUPPORTED, model::GemmTiming{});
  }
}

void Device::end(Op* op, const model::GemmTiming& timing) {
  busy_ = false;
  ++counters_.ops;
  counters_.busy_cycles += timing.busy;
  ended_(op, SHMGEMM_STATUS_OK, timing);
}

}  // namespace shmgemm::engine
