// A port of a device through which commands come from inside the simulation: the same records as a
// host's, judged by the same rules with all addresses for a heap, timed and not computed. Every
// command gets one completion; one that cannot be gets it at once, with a status that says why.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "engine/op.h"

namespace shmgemm::sst_element {

class InnerPort {
 public:
  using Answer = std::function<void(const shmgemm_completion&)>;

  explicit InnerPort(Answer answer) : answer_(std::move(answer)) {}

  // `device`, a number, replaces the one that the command names.
  void begin(shmgemm_command command, unsigned device);
  bool owns(const engine::Op* op) const { return ops_.owns(op); }
  void returned(engine::Op* op, shmgemm_status status, const model::GemmTiming& timing);

 private:
  Answer answer_;
  engine::OpTable ops_;
  std::deque<shmgemm_command> backlog_;  // for which there was no room
};

}  // namespace shmgemm::sst_element
