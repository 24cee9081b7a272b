// Commands to an engine over a channel that may come and go: queues them, knows which are in
// flight, and answers those with NO_DEVICE whose channel is lost or cannot be opened. The next
// command tries anew.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "channel.h"
#include "counters.h"
#include "loop.h"

namespace shmgemm::server {

struct Answer {
  shmgemm_completion completion;
  std::int64_t received_ns;  // the command, by the server
  std::int64_t device_ns;    // from its way out to its answer's way in; 0 where it never got out
};

class EnginePort : public Handler {
 public:
  // `answered` gets each batch; `state_changed` hears of a channel that has opened (its peer is
  // known) or is lost (with the reason). Neither may destroy the port.
  struct Callbacks {
    std::function<void(const std::vector<Answer>&)> answered;
    std::function<void()> opened;
    std::function<void(const std::string&)> lost;
  };

  EnginePort(Loop& loop, Backend* backend, Callbacks callbacks);
  ~EnginePort() override;

  void open();  // also done by submit()
  void close(const std::string& why);
  void submit(const shmgemm_command* commands, std::size_t count, std::int64_t received_ns);
  std::size_t outstanding() const { return queue_.size() + in_flight_.size(); }
  const Channel* channel() const { return channel_.get(); }

  void on_events(std::uint32_t events) override;

 private:
  struct InFlight {
    std::uint32_t generation;
    std::uint8_t device;
    std::int64_t received_ns, sent_ns;
  };
  struct Queued {
    shmgemm_command command;
    std::int64_t received_ns;
  };

  void send_queued();
  void receive(std::uint32_t events);
  void watch();
  void announce();

  Loop& loop_;
  Backend* backend_;
  Callbacks callbacks_;
  std::unique_ptr<Channel> channel_;
  std::uint32_t watched_events_ = 0;
  bool announced_ = false;
  std::deque<Queued> queue_;
  // A client may use an id twice; the engine refuses the second, with the same id.
  std::unordered_multimap<std::uint64_t, InFlight> in_flight_;
};

}  // namespace shmgemm::server
