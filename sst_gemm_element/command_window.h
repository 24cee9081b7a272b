// The memory-mapped command port of a GemmDevice: what its registers (registers.h) do. Whoever
// reads and writes them is a component of the simulation, behind SST::Interfaces::StandardMem; an
// access that cannot be is answered as failed.
#pragma once

#include <sst/core/interfaces/stdMem.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "abi/shmgemm_abi.h"

namespace shmgemm::sst_element {

inline constexpr std::uint64_t kLastMmioBase = std::uint64_t{1} << 62;  // of parameter `mmio_base`

class CommandWindow {
 public:
  using Port = SST::Interfaces::StandardMem;
  using Send = std::function<void(const shmgemm_command&)>;

  // `refused` is called for each access that is answered as failed.
  CommandWindow(std::uint64_t base, Send send, std::function<void()> refused)
      : base_(base), send_(std::move(send)), refused_(std::move(refused)) {}
  void connect(Port* port) { port_ = port; }

  void take(Port::Request* request);  // which is its own now
  void completed(const shmgemm_completion& completion);

 private:
  void read(std::unique_ptr<Port::Read> request);
  void write(std::unique_ptr<Port::Write> request);
  void refuse(std::unique_ptr<Port::Request> request);
  void answer(Port::Read& request, const void* from, std::uint64_t bytes);
  bool act(std::uint64_t offset);  // on a write to an 8-byte register; false: it cannot be
  std::uint64_t counter(std::uint64_t offset) const;

  const std::uint64_t base_;
  const Send send_;
  const std::function<void()> refused_;
  Port* port_ = nullptr;
  shmgemm_command command_{};
  std::uint64_t sent_ = 0;
  std::uint64_t dropped_ = 0;
  std::deque<shmgemm_completion> completions_;
  std::deque<std::unique_ptr<Port::Read>> waiting_;  // reads of WAIT
};

}  // namespace shmgemm::sst_element
