// How a process joins a session of another one: it says HELLO at the engine's socket and gets the
// region's descriptor and a queue pair of its own (abi/shmgemm_link.h). Nothing is sent there from
// then on: the socket tells each side that the other is gone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "abi/shmgemm_link.h"
#include "client/deadline.h"
#include "client/heap.h"

namespace shmgemm::client {

class Attachment {
 public:
  // `path`: of the engine's socket. DeviceLost where nobody listens there or the engine hangs up,
  // DeviceTimeout, RegionFull where every client's place is taken, ProtocolError, Unsupported where
  // the engine refuses.
  Attachment(std::string path, Deadline deadline);
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  const std::shared_ptr<Heap>& heap() const { return heap_; }  // the arena that comes with it
  std::uint32_t queue_pair() const { return lease_.queue_pair; }
  std::uint32_t devices() const { return hello_.devices; }
  const std::string& parameters() const { return parameters_; }  // lines "key=value", of device 0
  void hang_up();                                                // the descriptor stays

 private:
  void greet(Deadline deadline);
  void take_lease(const std::string& content, int region_fd);
  std::string receive_frame(shmgemm_link_kind kind, Deadline deadline);
  void receive(void* data, std::size_t bytes, Deadline deadline);
  long receive_some(void* data, std::size_t bytes);
  [[noreturn]] void throw_protocol(const std::string& what) const;

  const std::string path_;
  int fd_ = -1;
  int passed_fd_ = -1;  // received, and nobody's yet
  shmgemm_link_hello hello_{};
  shmgemm_link_lease lease_{};
  std::string parameters_;
  std::shared_ptr<Heap> heap_;
};

// Null where the options ask for none; what the engine says goes into them.
std::unique_ptr<Attachment> attach(SessionOptions& options, Deadline deadline);

}  // namespace shmgemm::client
