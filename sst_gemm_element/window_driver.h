// The other side of a command window (registers.h), as a processor's driver would be: one access at
// a time through SST::Interfaces::StandardMem.
#pragma once

#include <sst/core/interfaces/stdMem.h>

#include <cstdint>
#include <deque>
#include <functional>

#include "abi/shmgemm_abi.h"

namespace shmgemm::sst_element {

class WindowDriver {
 public:
  using Port = SST::Interfaces::StandardMem;
  using Ended = std::function<void(const shmgemm_completion&)>;

  WindowDriver(std::uint64_t base, Ended ended) : base_(base), ended_(std::move(ended)) {}
  void connect(Port* port) { port_ = port; }

  void send(const shmgemm_command& command);
  // std::runtime_error where the device refused an access.
  void answered(Port::Request* response);

 private:
  enum class Step { kIdle, kCommand, kDoorbell, kWait, kCompletion, kNext };

  void begin_next();
  void write(Step step, std::uint64_t offset, const void* from, std::uint64_t bytes);
  void read(Step step, std::uint64_t offset, std::uint64_t bytes);
  void write_command();
  void show(const Port::ReadResp& response);

  const std::uint64_t base_;
  const Ended ended_;
  Port* port_ = nullptr;
  Step step_ = Step::kIdle;
  std::uint64_t offset_ = 0;   // of the access under way
  std::uint64_t written_ = 0;  // bytes of the first command of to_send_
  std::deque<shmgemm_command> to_send_;
  std::uint64_t in_flight_ = 0;
  shmgemm_completion completion_{};
};

}  // namespace shmgemm::sst_element
