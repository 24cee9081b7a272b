// Letting go of the GIL around a blocking call, and taking it, in a way that survives the end of
// the interpreter. Up to Python 3.13 a thread that asks for the GIL while the interpreter ends is
// unwound by pthread_exit(), which terminates the process where a noexcept frame, such as any
// destructor (ours or torch's), lies in its way. Here such a thread stops for good instead, as from
// Python 3.14 on: the process is about to end. Only daemon threads get there; those in a device
// call stop as soon as the program begins to end, so that they do not go on with something that
// ends worse.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

#include "client/session.h"

namespace shmgemm {

inline bool in_main_thread() { return getpid() == gettid(); }

[[noreturn]] inline void stop_thread() {
  for (;;) pause();
}

inline void stop_thread_if_ending() {
  if (program_ending() && !in_main_thread()) stop_thread();
}

// Lets other Python threads run; the caller may or may not hold the GIL.
class GilRelease {
 public:
  GilRelease() : state_(PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr) {
    stop_thread_if_ending();
  }
  ~GilRelease() {
    stop_thread_if_ending();
    if (state_ == nullptr) return;
    try {
      PyEval_RestoreThread(state_);
    } catch (abi::__forced_unwind&) {
      stop_thread();
    }
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

// Takes the GIL, whether or not this thread has it.
class GilAcquire {
 public:
  GilAcquire() {
    try {
      state_ = PyGILState_Ensure();
    } catch (abi::__forced_unwind&) {
      stop_thread();
    }
  }
  ~GilAcquire() { PyGILState_Release(state_); }
  GilAcquire(const GilAcquire&) = delete;
  GilAcquire& operator=(const GilAcquire&) = delete;

 private:
  PyGILState_STATE state_{};
};

}  // namespace shmgemm
