// One link's socket, on the control thread: never blocks, reads no further than there is room for
// what comes, writes what the main loop answers, and says why before it hangs up on nonsense. A
// client of the region gets a queue pair instead, and its link only says how long it lives.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/bell.h"
#include "engine/client_places.h"
#include "engine/link_connection.h"
#include "engine/link_counters.h"
#include "engine/link_reader.h"

namespace shmgemm::engine {

// What a link is told and tells.
struct LinkHost {
  shmgemm_link_hello hello;
  LinkCounters& counters;
  std::shared_ptr<Bell> control;
  std::function<void(std::shared_ptr<Connection>)> connect;  // it said HELLO: serve it
  std::function<void()> ring;                                // it has commands for the main loop
  std::function<void(const std::string&)> log;
  std::shared_ptr<ClientPlaces> places;
  std::string parameters;  // of device 0, as a LEASE has them
};

class Link {
 public:
  Link(int socket, const LinkHost& host);  // takes the socket over
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void on_events(std::uint32_t epoll_events);
  void serve();              // after each round: answers, what waited for room, time limits
  bool has_answers() const;  // that can be sent, or a queue pair for who waits for one
  bool over() const { return over_; }
  std::uint32_t interest() const;       // what to wait for, as epoll has it
  void refuse(const std::string& why);  // FAILED, then hang up

 private:
  void read();
  void parse();
  void put(LinkReader::Found found);
  void greeted();
  void place_client();
  void append_lease(std::uint32_t queue_pair);
  void append_answers();
  void append(std::uint32_t kind, const void* content, std::size_t bytes);
  void write();
  ssize_t send_some();
  void hang_up();
  void end();
  std::size_t unsent() const { return out_.size() - sent_; }

  const int socket_;
  const LinkHost& host_;
  std::shared_ptr<LinkConnection> connection_;
  std::shared_ptr<ClientQueuePair> client_;  // in place of the connection
  bool awaits_place_ = false;
  LinkReader reader_;
  std::uint8_t index_ = 0;  // of the device that older records mean
  bool greeted_ = false;
  bool closing_ = false;  // once what is unsent has gone
  bool over_ = false;
  std::uint64_t deadline_ns_;  // of HELLO, of a client's place, then of closing
  std::vector<std::byte> out_;
  std::size_t sent_ = 0;
  int passed_fd_ = -1;  // goes with the first byte that is unsent
};

}  // namespace shmgemm::engine
