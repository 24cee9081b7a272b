// The floor of a command: a forked process that answers over bare shared memory, without engine,
// session, checks or protocol. It waits as the engine does (spin, then yield), or by futex alone,
// and sleeps in the kernel while the other side is measured.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "abi/shmgemm_abi.h"
#include "region/ring.h"

namespace shmgemm::measure {

class RawPeer {
 public:
  enum class Mode : std::uint32_t { kSleep = 0, kPoll = 1, kFutex = 2, kRing = 3, kEnd = 4 };

  explicit RawPeer(bool may_spin);  // forks: before any thread is started
  ~RawPeer();
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  pid_t pid() const { return child_; }
  void set_mode(Mode mode);
  void round_trip();        // in mode kPoll
  void futex_round_trip();  // in mode kFutex
  // `count` records there and back in batches of `depth`, in mode kRing.
  void send_records(std::uint64_t count, std::uint32_t depth);

 private:
  struct Shared;
  RawPeer(bool may_spin, Shared* shared);
  static Shared* map_shared();
  void serve();
  void serve_words(Mode mode, std::uint32_t seen);
  void serve_ring();
  template <class Ready>
  void poll(Ready&& ready) const;

  Shared* shared_;
  bool may_spin_;
  pid_t child_ = 0;
  std::uint32_t sent_ = 0;
  // Each process uses one end of each; they count on from round to round.
  region::RingProducer<shmgemm_command> command_in_;
  region::RingConsumer<shmgemm_command> command_out_;
  region::RingProducer<shmgemm_completion> completion_in_;
  region::RingConsumer<shmgemm_completion> completion_out_;
};

}  // namespace shmgemm::measure
