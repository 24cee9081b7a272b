// A futex word instead of a condition variable: the one who copies takes the job back from a helper
// that has not woken up by the time all pieces are taken, and then need not wait for it.
#include "client/copy_helper.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

#include "client/process.h"
#include "region/waiter.h"

namespace shmgemm::client {
namespace {

using Piece = void (*)(void*, std::uint64_t);

class Helper {
 public:
  // Null where there is no second CPU or no thread can be had.
  static Helper* of_this_process();

  // False where another thread's copy has the helper.
  bool run(std::uint64_t pieces, Piece piece, void* context);

 private:
  enum State : std::uint32_t { kIdle, kOffered, kTaken };

  bool start();
  void keep_off(int cpu);
  static void* main(void* self);
  void serve();
  void run_pieces();
  void sleep_while(State state);
  void wake();

  std::mutex one_copy_;  // guards all but the two counters, which the helper reads as well
  cpu_set_t allowed_;
  pthread_t thread_;
  bool started_ = false;
  int avoided_cpu_ = -1;
  std::atomic<std::uint32_t> state_{kIdle};
  std::atomic<std::uint64_t> next_{0};
  std::uint64_t pieces_ = 0;
  Piece piece_ = nullptr;
  void* context_ = nullptr;
};

// Never destroyed: the thread may sleep on it when the process ends. The parent's is left alone in
// a child, as its mutex may be locked by a thread that the child does not have.
Helper* Helper::of_this_process() {
  struct Slot {
    std::uint64_t epoch;
    Helper* helper;  // null: could not be started
  };
  static std::atomic<const Slot*> current{nullptr};
  const std::uint64_t epoch = process_epoch();
  const Slot* slot = current.load(std::memory_order_acquire);
  if (slot != nullptr && slot->epoch == epoch) return slot->helper;
  auto* const fresh = new Helper;
  const auto* const wanted = new Slot{epoch, fresh};
  if (!current.compare_exchange_strong(slot, wanted, std::memory_order_acq_rel)) {
    delete fresh;  // another thread was first
    delete wanted;
    return slot->epoch == epoch ? slot->helper : nullptr;
  }
  if (region::allowed_cpus() > 1 && fresh->start()) return fresh;
  current.store(new Slot{epoch, nullptr}, std::memory_order_release);
  return nullptr;
}

bool Helper::start() {
  const std::lock_guard<std::mutex> lock(one_copy_);
  if (sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) return false;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  started_ = pthread_create(&thread_, nullptr, &Helper::main, this) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (started_) pthread_detach(thread_);
  return started_;
}

// Linux likes to wake a thread on the waker's own CPU, where it would take turns with the waker.
void Helper::keep_off(int cpu) {
  if (!started_ || cpu < 0 || cpu == avoided_cpu_) return;
  avoided_cpu_ = cpu;
  cpu_set_t others = allowed_;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) > 0) pthread_setaffinity_np(thread_, sizeof others, &others);
}

void* Helper::main(void* self) {
  static_cast<Helper*>(self)->serve();
  return nullptr;
}

void Helper::serve() {
  for (;;) {
    sleep_while(kIdle);
    std::uint32_t offered = kOffered;
    if (!state_.compare_exchange_strong(offered, kTaken, std::memory_order_acq_rel)) continue;
    run_pieces();
    state_.store(kIdle, std::memory_order_release);
    wake();
  }
}

void Helper::run_pieces() {
  for (;;) {
    const std::uint64_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= pieces_) return;
    piece_(context_, index);
  }
}

bool Helper::run(std::uint64_t pieces, Piece piece, void* context) {
  const std::unique_lock<std::mutex> lock(one_copy_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  keep_off(sched_getcpu());
  pieces_ = pieces;
  piece_ = piece;
  context_ = context;
  next_.store(0, std::memory_order_relaxed);
  state_.store(kOffered, std::memory_order_release);
  wake();
  run_pieces();
  std::uint32_t offered = kOffered;
  if (state_.compare_exchange_strong(offered, kIdle, std::memory_order_acq_rel)) return true;
  sleep_while(kTaken);
  return true;
}

// The word is shared by two threads, so that a wake-up goes to the one that does not send it.
void Helper::sleep_while(State state) {
  while (state_.load(std::memory_order_acquire) == state) {
    syscall(SYS_futex, &state_, FUTEX_WAIT_PRIVATE, state, nullptr, nullptr, 0);
  }
}

void Helper::wake() { syscall(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0); }

}  // namespace

void share_pieces(std::uint64_t pieces, Piece piece, void* context) {
  Helper* const helper = Helper::of_this_process();
  if (helper != nullptr && helper->run(pieces, piece, context)) return;
  for (std::uint64_t index = 0; index < pieces; ++index) piece(context, index);
}

}  // namespace shmgemm::client
