// Worker threads that live as long as the pool and share out the pieces of one job with the thread
// that brought it. Idle workers sleep in the kernel; a job of one piece wakes nobody.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace shmgemm::compute {

class Pool {
 public:
  // A piece of a job; `worker` < threads() tells which thread runs it (0: the caller of run).
  using Piece = void (*)(void* job, std::uint64_t piece, unsigned worker);

  explicit Pool(unsigned threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  unsigned threads() const { return static_cast<unsigned>(workers_.size()) + 1; }
  // Returns when every piece has run. One job at a time: a second caller waits. Pieces must not
  // throw.
  void run(std::uint64_t pieces, Piece function, void* job);

 private:
  void work(unsigned worker);
  void keep_workers_off(int cpu);
  bool run_one(std::unique_lock<std::mutex>& lock, unsigned worker);
  void await_last_piece(std::unique_lock<std::mutex>& lock);

  std::mutex one_job_;  // held by the caller of run
  std::mutex mutex_;    // guards all below
  std::condition_variable work_;
  std::condition_variable done_;
  Piece function_ = nullptr;
  void* job_ = nullptr;
  std::uint64_t next_ = 0;    // first piece nobody has taken
  std::uint64_t pieces_ = 0;  // of the current job
  std::uint64_t unfinished_ = 0;
  bool stopping_ = false;
  std::vector<pid_t> thread_ids_;  // of the workers that have started

  cpu_set_t allowed_;     // to the process when the pool was made
  int avoided_cpu_ = -1;  // the CPU no worker may run on; used by the caller of run alone
  std::vector<std::thread> workers_;
};

}  // namespace shmgemm::compute
