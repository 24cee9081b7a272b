// Letting go of the GIL around a blocking call, and taking it back in a way that survives the end
// of the interpreter. Up to Python 3.13 a thread that asks for the GIL while the interpreter ends
// is unwound by pthread_exit(), which terminates the process where a noexcept frame, such as any
// destructor, lies in its way. Here such a thread stops for good instead, as from Python 3.14 on:
// the process is about to end.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

namespace shmgemm {

// Lets other Python threads run; the caller may or may not hold the GIL.
class GilRelease {
 public:
  GilRelease() : state_(PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr) {}
  ~GilRelease() {
    if (state_ == nullptr) return;
    try {
      PyEval_RestoreThread(state_);
    } catch (abi::__forced_unwind&) {
      for (;;) pause();
    }
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace shmgemm
