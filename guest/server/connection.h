// One TCP client. It reads on while its requests are under way, up to fixed limits; a client that
// does not take its answers is not read any further. Answers to ops 0, 1 and 17 come in the order
// of the requests, those to op 16 as the engine gives them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "accelerator.h"
#include "engine_port.h"
#include "frame.h"
#include "loop.h"
#include "output.h"

namespace shmgemm::server {

// What all connections share.
struct Services {
  Loop& loop;
  Backend* backend;
  Accelerator& accelerator;
  Budget& budget;
  Counters& counters;
  std::uint64_t max_matrix_bytes;
  std::function<void(std::function<void(std::string)>)> status_json;
};

class Connection : public Handler, public std::enable_shared_from_this<Connection> {
 public:
  Connection(Services& services, int fd, std::string client);
  ~Connection() override;

  void on_events(std::uint32_t events) override;
  void on_room();  // of the budget, for one that waits for it
  void on_tick(std::int64_t now);
  bool closed() const { return fd_ < 0; }

 private:
  // An answer that has its place in the order, ready or not.
  struct Slot {
    bool ready = false;
    Bytes bytes;
    Budget::Reservation reservation;
  };

  bool may_read() const;
  void read_some();
  void use_input();
  void handle(Frame frame);
  void handle_inline(Frame frame);
  void handle_commands(const Frame& frame);
  void handle_status();
  void log_frame(const Frame& frame) const;
  void answered(const std::vector<Answer>& answers);
  void fill_slot(const std::shared_ptr<Slot>& slot, Bytes bytes);
  void go_on();  // after any change: sends, reads on or not, ends where all is done
  void fail(const std::string& why);
  void close();

  Services& services_;
  int fd_;
  const std::string client_;
  FrameReader reader_;
  EnginePort port_;
  Bytes input_;  // received, not yet used
  std::deque<std::shared_ptr<Slot>> slots_;
  Output output_;
  bool ended_ = false;  // the client sends no more
  bool using_input_ = false;
  std::uint32_t watched_events_;
  std::int64_t progress_ns_;
};

}  // namespace shmgemm::server
