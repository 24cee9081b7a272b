// What lies behind a device's scratchpads, as a timing model sees it. It carries no data: the
// numbers are computed in place, this decides only when the bytes would have arrived.
#pragma once

#include <cstdint>
#include <functional>

#include "model/interface.h"

namespace shmgemm::model {

// A block of memory: `rows` pieces of `bytes` each, `pitch_bytes` apart. A tile of a row-major
// matrix is one extent, so that fetching it costs one event and not one per row.
struct Extent {
  std::uint64_t address = 0;
  std::uint64_t bytes = 0;
  std::uint64_t rows = 1;
  std::uint64_t pitch_bytes = 0;

  std::uint64_t total_bytes() const { return bytes * rows; }
};

// `done` runs once, from the scheduler, at the cycle the last byte has arrived; never from within
// the call. Any number of transfers may be outstanding; a memory says itself in which order they
// are served.
class SHMGEMM_MODEL_API Memory {
 public:
  virtual ~Memory() = default;
  virtual void read(const Extent& extent, std::function<void()> done) = 0;
  virtual void write(const Extent& extent, std::function<void()> done) = 0;
};

}  // namespace shmgemm::model
