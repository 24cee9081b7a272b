// One host at the engine's door: a queue pair of the region, or a link. The main loop takes its
// commands and gives it completions; ids and streams are its own, and its order fixes simulated
// time.
#pragma once

#include <cstdint>

#include "engine/op.h"

namespace shmgemm::engine {

// A private copy of what a host sent.
struct Arrived {
  shmgemm_command command;
  std::uint32_t slot = 0;      // of the connection; comes back with the answer
  Request* request = nullptr;  // an older record, in place of the command; only device is set there
};

class Connection {
 public:
  Connection() = default;
  virtual ~Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  virtual bool ready() const = 0;           // seq_cst: something is there to be taken
  virtual bool take(Arrived& arrived) = 0;  // false where nothing is
  virtual void answer(std::uint32_t slot, const shmgemm_completion& completion) = 0;
  virtual bool gone() const { return false; }  // for good: nobody is left to be answered
  virtual void wake() {}                       // the other side, which looks whether we still serve

  OpTable ops;  // in flight; of the main loop alone
};

}  // namespace shmgemm::engine
