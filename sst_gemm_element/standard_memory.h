// A model's memory that is part of the simulation: extents go out of the slot as requests of one
// line each, through SST::Interfaces::StandardMem, and are done when the last response is there.
// Requests leave in the order in which the model asked, so many at a time.
#pragma once

#include <sst/core/interfaces/stdMem.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>

#include "model/memory.h"

namespace shmgemm::sst_element {

class StandardMemory final : public model::Memory {
 public:
  using Port = SST::Interfaces::StandardMem;
  // Runs a callback as an event of the device, at the present time.
  using Post = std::function<void(std::function<void()>)>;

  StandardMemory(std::uint64_t most_in_flight, Post post)
      : most_in_flight_(most_in_flight), post_(std::move(post)) {}
  void connect(Port* port) { port_ = port; }

  void read(const model::Extent& extent, std::function<void()> done) override {
    begin(extent, false, std::move(done));
  }
  void write(const model::Extent& extent, std::function<void()> done) override {
    begin(extent, true, std::move(done));
  }
  void answered(Port::Request* response);
  void forget();  // nobody asks any more: responses come, and cause nothing
  bool waiting() const { return !in_flight_.empty(); }

 private:
  struct Transfer {
    model::Extent extent;
    bool is_write = false;
    std::function<void()> done;
    std::uint64_t row = 0, offset = 0;  // of the next request
    std::uint64_t left_bytes = 0;       // not yet answered
  };
  struct InFlight {
    std::shared_ptr<Transfer> transfer;
    std::uint64_t bytes;
  };

  void begin(const model::Extent& extent, bool is_write, std::function<void()> done);
  void send_requests();
  void send_request(const std::shared_ptr<Transfer>& transfer);

  Port* port_ = nullptr;
  const std::uint64_t most_in_flight_;
  Post post_;
  std::deque<std::shared_ptr<Transfer>> to_send_;
  std::unordered_map<Port::Request::id_t, InFlight> in_flight_;
};

}  // namespace shmgemm::sst_element
