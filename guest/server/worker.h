// Threads for what takes long (the CPU's products), so that the loop never does. A task runs on one
// of them; what it is to do afterwards runs in the loop.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "loop.h"

namespace shmgemm::server {

class Worker : public Handler {
 public:
  using Task = std::function<void()>;

  Worker(Loop& loop, unsigned threads);
  ~Worker() override;

  void run(Task task, Task afterwards);
  void on_events(std::uint32_t events) override;

 private:
  struct Job {
    Task task, afterwards;
  };
  void serve();

  Loop& loop_;
  int done_fd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool quit_ = false;
  std::deque<Job> waiting_;
  std::vector<Task> done_;
  std::vector<std::thread> threads_;
};

}  // namespace shmgemm::server
