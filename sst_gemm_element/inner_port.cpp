#include "inner_port.h"

#include "abi/shmgemm_validate.h"
#include "host_port.h"
#include "house.h"

namespace shmgemm::sst_element {
namespace {

shmgemm_status check(const shmgemm_command& command) {
  const shmgemm_limits everywhere{1, UINT64_MAX, command.generation, command.device + 1u};
  const shmgemm_status status = shmgemm_validate_command(&command, &everywhere);
  if (status != SHMGEMM_STATUS_OK) return status;
  if (command.report != 0) return SHMGEMM_STATUS_BAD_REPORT;
  if (command.op != SHMGEMM_OP_GEMM && command.op != SHMGEMM_OP_NOOP) {
    return SHMGEMM_STATUS_UNSUPPORTED;
  }
  const bool is_late = command.release_cycles > House::ours().host->last_cycle();
  return is_late ? SHMGEMM_STATUS_BAD_ARGUMENT : SHMGEMM_STATUS_OK;
}

shmgemm_completion completion_of(const shmgemm_command& command, shmgemm_status status) {
  shmgemm_completion completion{};
  completion.id = command.id;
  completion.generation = command.generation;
  completion.status = static_cast<std::uint16_t>(status);
  completion.device = command.device;
  completion.start_cycles = completion.end_cycles = House::ours().host->now();
  return completion;
}

}  // namespace

void InnerPort::begin(shmgemm_command command, unsigned device) {
  command.device = static_cast<std::uint8_t>(device);
  const shmgemm_status status = check(command);
  if (status != SHMGEMM_STATUS_OK) return answer_(completion_of(command, status));
  command.after = 0;  // a device ends its ops in the order in which they came
  if (ops_.full()) return backlog_.push_back(command);
  engine::Op* op = ops_.add(command, nullptr);
  House::ours().host->post([op] { House::ours().host->enqueue(op); }, 0);
}

void InnerPort::returned(engine::Op* op, shmgemm_status status, const model::GemmTiming& timing) {
  shmgemm_completion completion = completion_of(op->command, status);
  completion.start_cycles = op->start;
  completion.busy_cycles = timing.busy;
  completion.fill_drain_cycles = timing.fill_drain;
  completion.memory_stall_cycles = timing.memory_stall;
  ops_.remove(op);
  answer_(completion);
  if (backlog_.empty()) return;
  const shmgemm_command next = backlog_.front();
  backlog_.pop_front();
  begin(next, next.device);
}

}  // namespace shmgemm::sst_element
