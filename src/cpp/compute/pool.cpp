// A mutex and two condition variables: pieces take tens of microseconds, a lock tens of
// nanoseconds, and under a lock no wake-up is lost and no late worker meets the next job half
// written.
#include "compute/pool.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace shmgemm::compute {
namespace {

// Pieces of one job end close together, and sleeping costs more than this.
constexpr std::chrono::microseconds kYieldBeforeSleep{40};

}  // namespace

Pool::Pool(unsigned threads) {
  if (sched_getaffinity(0, sizeof(allowed_), &allowed_) != 0) CPU_ZERO(&allowed_);
  for (unsigned worker = 1; worker < threads; ++worker) {
    workers_.emplace_back([this, worker] { work(worker); });
  }
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::run(std::uint64_t pieces, Piece function, void* job) {
  if (pieces == 0) return;
  const std::lock_guard<std::mutex> alone(one_job_);
  if (pieces == 1 || workers_.empty()) {
    for (std::uint64_t piece = 0; piece < pieces; ++piece) function(job, piece, 0);
    return;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  keep_workers_off(sched_getcpu());
  function_ = function;
  job_ = job;
  next_ = 0;
  pieces_ = unfinished_ = pieces;
  const std::uint64_t helpers = std::min<std::uint64_t>(pieces - 1, workers_.size());
  lock.unlock();
  for (std::uint64_t helper = 0; helper < helpers; ++helper) work_.notify_one();
  lock.lock();
  while (run_one(lock, 0)) {
  }
  await_last_piece(lock);
}

// Takes and runs a piece with the lock released; false where none is left to take.
bool Pool::run_one(std::unique_lock<std::mutex>& lock, unsigned worker) {
  if (next_ == pieces_) return false;
  const std::uint64_t piece = next_++;
  const Piece function = function_;
  void* const job = job_;
  lock.unlock();
  function(job, piece, worker);
  lock.lock();
  if (--unfinished_ == 0) done_.notify_all();
  return true;
}

void Pool::await_last_piece(std::unique_lock<std::mutex>& lock) {
  const auto deadline = std::chrono::steady_clock::now() + kYieldBeforeSleep;
  while (unfinished_ != 0 && std::chrono::steady_clock::now() < deadline) {
    lock.unlock();
    sched_yield();
    lock.lock();
  }
  done_.wait(lock, [this] { return unfinished_ == 0; });
}

// Where no CPU is idle, Linux likes to wake a thread on the waker's own CPU, and leaves it waiting
// behind the waker for milliseconds: the job would run as if on one thread.
void Pool::keep_workers_off(int cpu) {
  if (cpu < 0 || cpu == avoided_cpu_ || thread_ids_.size() != workers_.size()) return;
  avoided_cpu_ = cpu;
  cpu_set_t others = allowed_;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) == 0) return;
  for (const pid_t thread : thread_ids_) sched_setaffinity(thread, sizeof(others), &others);
}

void Pool::work(unsigned worker) {
  std::unique_lock<std::mutex> lock(mutex_);
  thread_ids_.push_back(static_cast<pid_t>(syscall(SYS_gettid)));
  for (;;) {
    work_.wait(lock, [this] { return stopping_ || next_ != pieces_; });
    if (stopping_) return;
    while (run_one(lock, worker)) {
    }
  }
}

}  // namespace shmgemm::compute
