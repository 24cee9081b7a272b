#include "worker.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace shmgemm::server {

Worker::Worker(Loop& loop, unsigned threads)
    : loop_(loop), done_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (done_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  loop_.add(done_fd_, EPOLLIN, this);
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
}

Worker::~Worker() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    quit_ = true;
    waiting_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  loop_.remove(done_fd_, this);
  close(done_fd_);
}

void Worker::run(Task task, Task afterwards) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push_back({std::move(task), std::move(afterwards)});
  }
  wake_.notify_one();
}

void Worker::serve() {
  for (;;) {
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [this] { return quit_ || !waiting_.empty(); });
    if (quit_) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    job.task();
    lock.lock();
    done_.push_back(std::move(job.afterwards));
    lock.unlock();
    const std::uint64_t one = 1;
    (void)!write(done_fd_, &one, sizeof one);
  }
}

void Worker::on_events(std::uint32_t) {
  std::uint64_t count;
  (void)!read(done_fd_, &count, sizeof count);
  std::vector<Task> done;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    done.swap(done_);
  }
  for (const Task& afterwards : done) afterwards();
}

}  // namespace shmgemm::server
