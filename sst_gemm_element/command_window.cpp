#include "command_window.h"

#include <cstring>
#include <utility>
#include <vector>

#include "registers.h"

namespace shmgemm::sst_element {
namespace {

constexpr std::uint64_t kCounterBytes = 8;

// Does [offset, offset + bytes) lie in the register at `begin`? The offset may be anything.
bool is_within(std::uint64_t offset, std::uint64_t bytes, std::uint64_t begin,
               std::uint64_t register_bytes) {
  return bytes != 0 && offset >= begin && offset - begin < register_bytes &&
         bytes <= register_bytes - (offset - begin);
}

bool is_counter(std::uint64_t offset, std::uint64_t bytes) {
  return offset >= SHMGEMM_MMIO_DOORBELL && offset <= SHMGEMM_MMIO_NEXT &&
         offset % kCounterBytes == 0 && bytes != 0 && bytes <= kCounterBytes;
}

template <typename Kind>
std::unique_ptr<Kind> as(std::unique_ptr<SST::Interfaces::StandardMem::Request>& request) {
  auto* const kind = dynamic_cast<Kind*>(request.get());
  if (kind != nullptr) request.release();
  return std::unique_ptr<Kind>(kind);
}

}  // namespace

void CommandWindow::take(Port::Request* given) {
  std::unique_ptr<Port::Request> request(given);
  if (auto reading = as<Port::Read>(request)) return read(std::move(reading));
  if (auto writing = as<Port::Write>(request)) return write(std::move(writing));
  refuse(std::move(request));  // an atomic access, a flush, or what another library has added
}

void CommandWindow::refuse(std::unique_ptr<Port::Request> request) {
  refused_();
  if (!request->needsResponse()) return;
  Port::Request* const response = request->makeResponse();
  if (response == nullptr) return;
  response->setFail();
  port_->send(response);
}

void CommandWindow::answer(Port::Read& request, const void* from, std::uint64_t bytes) {
  auto* const response = static_cast<Port::ReadResp*>(request.makeResponse());
  const auto* const begin = static_cast<const std::uint8_t*>(from);
  response->data.assign(begin, begin + bytes);
  port_->send(response);
}

std::uint64_t CommandWindow::counter(std::uint64_t offset) const {
  return offset == SHMGEMM_MMIO_DOORBELL ? sent_ : completions_.size();
}

void CommandWindow::read(std::unique_ptr<Port::Read> request) {
  const std::uint64_t offset = request->pAddr - base_, bytes = request->size;
  if (is_within(offset, bytes, SHMGEMM_MMIO_COMMAND, sizeof command_)) {
    const auto* const from = reinterpret_cast<const std::uint8_t*>(&command_);
    return answer(*request, from + (offset - SHMGEMM_MMIO_COMMAND), bytes);
  }
  if (is_within(offset, bytes, SHMGEMM_MMIO_COMPLETION, sizeof(shmgemm_completion))) {
    const shmgemm_completion shown =
        completions_.empty() ? shmgemm_completion{} : completions_.front();
    const auto* const from = reinterpret_cast<const std::uint8_t*>(&shown);
    return answer(*request, from + (offset - SHMGEMM_MMIO_COMPLETION), bytes);
  }
  if (!is_counter(offset, bytes) || offset == SHMGEMM_MMIO_NEXT) return refuse(std::move(request));
  if (offset == SHMGEMM_MMIO_WAIT && completions_.empty()) {
    const bool is_for_ever = sent_ == dropped_ || waiting_.size() == SHMGEMM_MMIO_COMMANDS;
    if (is_for_ever) return refuse(std::move(request));
    return waiting_.push_back(std::move(request));
  }
  const std::uint64_t value = counter(offset);
  answer(*request, &value, bytes);
}

void CommandWindow::write(std::unique_ptr<Port::Write> request) {
  const std::uint64_t offset = request->pAddr - base_, bytes = request->size;
  if (request->data.size() != bytes) return refuse(std::move(request));
  if (is_within(offset, bytes, SHMGEMM_MMIO_COMMAND, sizeof command_)) {
    auto* const to = reinterpret_cast<std::uint8_t*>(&command_);
    std::memcpy(to + (offset - SHMGEMM_MMIO_COMMAND), request->data.data(), bytes);
  } else if (!is_counter(offset, bytes) || !act(offset)) {
    return refuse(std::move(request));
  }
  if (request->needsResponse()) port_->send(request->makeResponse());
}

bool CommandWindow::act(std::uint64_t offset) {
  if (offset == SHMGEMM_MMIO_NEXT && !completions_.empty()) {
    completions_.pop_front();
    ++dropped_;
    return true;
  }
  if (offset != SHMGEMM_MMIO_DOORBELL || sent_ - dropped_ == SHMGEMM_MMIO_COMMANDS) return false;
  ++sent_;
  send_(command_);
  return true;
}

void CommandWindow::completed(const shmgemm_completion& completion) {
  completions_.push_back(completion);
  const std::uint64_t value = completions_.size();
  for (const auto& request : std::exchange(waiting_, {})) answer(*request, &value, request->size);
}

}  // namespace shmgemm::sst_element
