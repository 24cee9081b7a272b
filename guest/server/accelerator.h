// The device as the server itself uses it: inline operands are put into the server's arena of the
// region, a GEMM command names them there, and the product is copied out. It says by a self-check
// at each (re)connection whether a device answers; where none does, the CPU computes.
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
#include "engine_port.h"
#include "frame.h"
#include "region/allocator.h"
#include "worker.h"

namespace shmgemm::server {

struct InlineJob {
  Frame frame;
  Bytes c;
  std::function<void()> done;  // called in the loop once c is there
};

class Accelerator {
 public:
  Accelerator(Loop& loop, Backend* backend, Worker& worker, Counters& counters);

  void run(const std::shared_ptr<InlineJob>& job);
  // Calls back with what the engine says of itself; with nullptr where none answers.
  void ask_info(std::function<void(const shmgemm_info*)> told);
  void tick();

  bool up() const { return state_ == State::kUp; }
  bool settled() const { return state_ == State::kUp || state_ == State::kDown; }
  const std::string& reason() const { return reason_; }  // why it is not up
  const Peer* peer() const;
  const RegionView* region() const { return region_.get(); }

 private:
  enum class State { kDown, kOpening, kChecking, kUp };
  struct Pending {
    std::shared_ptr<InlineJob> job;  // of a GEMM
    std::function<void(const shmgemm_info*)> told;
    bool is_check = false;
    std::uint64_t block = 0;
  };

  void try_open();
  void opened();
  void begin_check();
  void lost(const std::string& why);
  void come_up();
  void answered(const std::vector<Answer>& answers);
  void answered_check(const shmgemm_completion& completion, std::uint64_t block);
  void answered_info(const shmgemm_completion& completion, const Pending& pending);
  void answered_job(const shmgemm_completion& completion, const Pending& pending);
  bool stage(const std::shared_ptr<InlineJob>& job);
  void run_waiting();
  void run_on_cpu(const std::shared_ptr<InlineJob>& job);
  void send(shmgemm_command command, Pending pending);

  Backend* backend_;
  Worker& worker_;
  Counters& counters_;
  EnginePort port_;
  State state_ = State::kDown;
  std::string reason_;
  std::int64_t next_try_ns_ = 0, deadline_ns_ = 0;
  std::unique_ptr<RegionView> region_;
  // Kept for as long as the same engine may still write to a block that it was given.
  std::unique_ptr<region::Allocator> arena_;
  std::uint64_t arena_region_id_[2] = {0, 0};
  std::uint32_t arena_generation_ = 0;
  std::uint64_t next_id_ = 0;
  std::unordered_map<std::uint64_t, Pending> pending_;
  std::deque<std::shared_ptr<InlineJob>> waiting_;  // for room in the arena
  float check_product_ = 0;
};

}  // namespace shmgemm::server
