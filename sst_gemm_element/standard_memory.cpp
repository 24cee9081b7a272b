#include "standard_memory.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace shmgemm::sst_element {
namespace {

constexpr std::uint64_t kLineBytes = 64;  // where what is in the slot does not know

}  // namespace

void StandardMemory::begin(const model::Extent& extent, bool is_write, std::function<void()> done) {
  if (extent.total_bytes() == 0) return post_(std::move(done));
  const auto transfer = std::make_shared<Transfer>();
  transfer->extent = extent;
  if (extent.pitch_bytes == extent.bytes) {  // rows without gaps are one
    transfer->extent = {extent.address, extent.total_bytes(), 1, 0};
  }
  transfer->is_write = is_write;
  transfer->done = std::move(done);
  transfer->left_bytes = extent.total_bytes();
  to_send_.push_back(transfer);
  send_requests();
}

void StandardMemory::send_requests() {
  while (!to_send_.empty() && in_flight_.size() < most_in_flight_) {
    const auto transfer = to_send_.front();
    send_request(transfer);
    if (transfer->row == transfer->extent.rows) to_send_.pop_front();
  }
}

void StandardMemory::send_request(const std::shared_ptr<Transfer>& transfer) {
  const model::Extent& extent = transfer->extent;
  const std::uint64_t line = port_->getLineSize() == 0 ? kLineBytes : port_->getLineSize();
  const std::uint64_t address =
      extent.address + transfer->row * extent.pitch_bytes + transfer->offset;
  const std::uint64_t bytes = std::min(line - address % line, extent.bytes - transfer->offset);
  transfer->offset += bytes;
  if (transfer->offset == extent.bytes) {
    transfer->offset = 0;
    ++transfer->row;
  }
  Port::Request* request = nullptr;
  if (transfer->is_write) {
    request = new Port::Write(address, bytes, std::vector<std::uint8_t>(bytes));
  } else {
    request = new Port::Read(address, bytes);
  }
  in_flight_[request->getID()] = {transfer, bytes};
  port_->send(request);
}

void StandardMemory::answered(Port::Request* response) {
  const auto found = in_flight_.find(response->getID());
  const bool known = found != in_flight_.end();
  delete response;
  if (!known) return;
  const auto [transfer, bytes] = std::move(found->second);
  in_flight_.erase(found);
  transfer->left_bytes -= bytes;
  if (transfer->left_bytes == 0 && transfer->done) post_(std::move(transfer->done));
  send_requests();
}

void StandardMemory::forget() {
  to_send_.clear();
  for (auto& [id, in_flight] : in_flight_) in_flight.transfer->done = nullptr;
}

}  // namespace shmgemm::sst_element
