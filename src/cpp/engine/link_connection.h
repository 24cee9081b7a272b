// A link as the main loop sees it: commands and completions in rings in private memory, between it
// and the control thread, which has the socket. At most SHMGEMM_RING_SLOTS are under way, so the
// rings cannot overflow.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "engine/bell.h"
#include "engine/connection.h"
#include "engine/older_records.h"
#include "region/ring.h"

namespace shmgemm::engine {

class LinkConnection final : public Connection {
 public:
  explicit LinkConnection(std::shared_ptr<Bell> control);

  // --- the main loop -----------------------------------------------------------------------------
  bool ready() const override { return commands_out_.ready(); }
  bool take(Arrived& arrived) override;
  void answer(std::uint32_t slot, const shmgemm_completion& completion) override;
  bool gone() const override { return gone_.load(); }

  // --- the control thread ------------------------------------------------------------------------
  struct Answer {
    shmgemm_completion completion;
    const virtio_sst_response* response;  // null: to a command; valid until the next put_request()
    std::uint64_t arrived_ns;
  };
  bool full() const { return free_.empty(); }
  bool idle() const { return free_.size() == kSlots; }
  void put(const shmgemm_command& command, std::uint64_t now_ns);  // where it is not full
  void put_request(const virtio_sst_request& request, std::uint8_t device, std::uint64_t now_ns);
  bool answered() const { return completions_out_.ready(); }
  bool take_answer(Answer& answer);
  void hang_up() { gone_.store(true); }

 private:
  static constexpr std::uint32_t kSlots = SHMGEMM_RING_SLOTS;

  struct Command {
    shmgemm_command command;
    std::uint32_t slot;
    std::uint32_t seq;
  };
  struct Completion {
    shmgemm_completion completion;
    std::uint32_t slot;
    std::uint32_t seq;
  };
  struct Slot {
    bool is_request = false;
    std::uint64_t arrived_ns = 0;
    std::unique_ptr<Request> request;  // made at first use, then used again
  };

  Slot& use_slot(std::uint64_t now_ns, std::uint32_t& index);

  std::vector<Command> command_ring_;
  std::vector<Completion> completion_ring_;
  region::RingProducer<Command> commands_in_;
  region::RingConsumer<Command> commands_out_;
  region::RingProducer<Completion> completions_in_;
  region::RingConsumer<Completion> completions_out_;
  std::array<Slot, kSlots> slots_;
  std::vector<std::uint32_t> free_;  // of the control thread
  std::atomic<bool> gone_{false};
  std::shared_ptr<Bell> control_;
};

}  // namespace shmgemm::engine
