// What can go wrong between a client and its device; each class is one Python exception of the same
// name.
#pragma once

#include <stdexcept>

// Caught in other shared objects than the one that throws, so its type must be one in all of them.
#define SHMGEMM_EXCEPTION __attribute__((visibility("default")))

namespace shmgemm {

struct SHMGEMM_EXCEPTION Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct SHMGEMM_EXCEPTION DeviceLost : Error {  // the engine died or hung up
  using Error::Error;
};
struct SHMGEMM_EXCEPTION DeviceTimeout : Error {  // no heartbeat, or the caller's deadline passed
  using Error::Error;
};
struct SHMGEMM_EXCEPTION ProtocolError : Error {  // a peer sent what it must not
  using Error::Error;
};
struct SHMGEMM_EXCEPTION RegionFull
    : Error {  // no room in the region, or none in the machine for it
  using Error::Error;
};
struct SHMGEMM_EXCEPTION Unsupported : Error {  // a shape, type or platform that cannot work
  using Error::Error;
};
struct SHMGEMM_EXCEPTION Closed
    : Error {  // the session was closed, or belongs to the process this one was forked from
  using Error::Error;
};
struct SHMGEMM_EXCEPTION Cancelled : Error {  // by who asked for it
  using Error::Error;
};
struct SHMGEMM_EXCEPTION Interrupted : Error {  // the interrupt check said stop (Ctrl-C)
  using Error::Error;
};

}  // namespace shmgemm
