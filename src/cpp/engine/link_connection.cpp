#include "engine/link_connection.h"

#include <utility>

namespace shmgemm::engine {

LinkConnection::LinkConnection(std::shared_ptr<Bell> control)
    : command_ring_(kSlots),
      completion_ring_(kSlots),
      commands_in_(command_ring_.data(), kSlots),
      commands_out_(command_ring_.data(), kSlots),
      completions_in_(completion_ring_.data(), kSlots),
      completions_out_(completion_ring_.data(), kSlots),
      control_(std::move(control)) {
  for (std::uint32_t slot = kSlots; slot > 0; --slot) free_.push_back(slot - 1);
}

bool LinkConnection::take(Arrived& arrived) {
  Command record;
  if (!commands_out_.poll(record)) return false;
  Slot& slot = slots_[record.slot];
  arrived.command = record.command;
  arrived.slot = record.slot;
  arrived.request = slot.is_request ? slot.request.get() : nullptr;
  return true;
}

void LinkConnection::answer(std::uint32_t slot, const shmgemm_completion& completion) {
  completions_in_.publish({completion, slot, 0});
  control_->ring();
}

LinkConnection::Slot& LinkConnection::use_slot(std::uint64_t now_ns, std::uint32_t& index) {
  index = free_.back();
  free_.pop_back();
  slots_[index].arrived_ns = now_ns;
  return slots_[index];
}

void LinkConnection::put(const shmgemm_command& command, std::uint64_t now_ns) {
  std::uint32_t index = 0;
  use_slot(now_ns, index).is_request = false;
  commands_in_.publish({command, index, 0});
}

void LinkConnection::put_request(const virtio_sst_request& request, std::uint8_t device,
                                 std::uint64_t now_ns) {
  std::uint32_t index = 0;
  Slot& slot = use_slot(now_ns, index);
  slot.is_request = true;
  if (!slot.request) slot.request = std::make_unique<Request>();
  slot.request->asked = request;
  slot.request->answer = {};
  shmgemm_command command{};
  command.device = device;
  commands_in_.publish({command, index, 0});
}

bool LinkConnection::take_answer(Answer& answer) {
  Completion record;
  if (!completions_out_.poll(record)) return false;
  const Slot& slot = slots_[record.slot];
  answer.completion = record.completion;
  answer.response = slot.is_request ? &slot.request->answer : nullptr;
  answer.arrived_ns = slot.arrived_ns;
  free_.push_back(record.slot);
  return true;
}

}  // namespace shmgemm::engine
