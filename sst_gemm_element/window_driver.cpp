#include "window_driver.h"

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "registers.h"

namespace shmgemm::sst_element {
namespace {

constexpr std::uint64_t kPieceBytes = 64;  // no access is longer than a cache line
constexpr std::uint64_t kCounterBytes = 8;

}  // namespace

void WindowDriver::send(const shmgemm_command& command) {
  to_send_.push_back(command);
  if (step_ == Step::kIdle) begin_next();
}

void WindowDriver::begin_next() {
  step_ = Step::kIdle;
  if (!to_send_.empty() && in_flight_ < SHMGEMM_MMIO_COMMANDS) {
    written_ = 0;
    write_command();
  } else if (in_flight_ != 0) {
    read(Step::kWait, SHMGEMM_MMIO_WAIT, kCounterBytes);
  }
}

void WindowDriver::write_command() {
  const auto* const from = reinterpret_cast<const std::uint8_t*>(&to_send_.front());
  write(Step::kCommand, SHMGEMM_MMIO_COMMAND + written_, from + written_, kPieceBytes);
  written_ += kPieceBytes;
}

void WindowDriver::write(Step step, std::uint64_t offset, const void* from, std::uint64_t bytes) {
  step_ = step;
  offset_ = offset;
  const auto* const begin = static_cast<const std::uint8_t*>(from);
  port_->send(
      new Port::Write(base_ + offset, bytes, std::vector<std::uint8_t>(begin, begin + bytes)));
}

void WindowDriver::read(Step step, std::uint64_t offset, std::uint64_t bytes) {
  step_ = step;
  offset_ = offset;
  port_->send(new Port::Read(base_ + offset, bytes));
}

void WindowDriver::show(const Port::ReadResp& response) {
  if (response.data.size() != sizeof completion_) {
    throw std::runtime_error("a completion of " + std::to_string(response.data.size()) +
                             " bytes was read, expected " + std::to_string(sizeof completion_));
  }
  std::memcpy(&completion_, response.data.data(), sizeof completion_);
}

void WindowDriver::answered(Port::Request* response) {
  const std::unique_ptr<Port::Request> owned(response);
  if (response->getFail()) {
    throw std::runtime_error("the access to address " + std::to_string(base_ + offset_) +
                             " failed; the device's mmio_base is expected to be " +
                             std::to_string(base_));
  }
  const std::uint64_t any = 1;
  switch (step_) {
    case Step::kCommand:
      if (written_ < sizeof(shmgemm_command)) return write_command();
      return write(Step::kDoorbell, SHMGEMM_MMIO_DOORBELL, &any, kCounterBytes);
    case Step::kDoorbell:
      to_send_.pop_front();
      ++in_flight_;
      return begin_next();
    case Step::kWait:
      return read(Step::kCompletion, SHMGEMM_MMIO_COMPLETION, sizeof completion_);
    case Step::kCompletion:
      show(dynamic_cast<const Port::ReadResp&>(*response));
      return write(Step::kNext, SHMGEMM_MMIO_NEXT, &any, kCounterBytes);
    case Step::kNext:
      --in_flight_;
      ended_(completion_);
      if (step_ == Step::kNext) begin_next();
      return;
    case Step::kIdle:
      throw std::runtime_error("an answer came to nothing that was asked");
  }
}

}  // namespace shmgemm::sst_element
