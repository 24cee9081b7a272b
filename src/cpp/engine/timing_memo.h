// Timings of shapes that a device has seen, for a model that says it repeats: the events of a
// product that an earlier one has gone through need not be gone through again, only its end.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "model/timing_model.h"

namespace shmgemm::engine {

class TimingMemo {
 public:
  // Null where it is not known. Valid until the next remember().
  const model::GemmTiming* find(const model::GemmShape& shape) const {
    const auto found = timings_.find(key_of(shape));
    return found == timings_.end() ? nullptr : &found->second;
  }

  void remember(const model::GemmShape& shape, const model::GemmTiming& timing) {
    if (timings_.size() >= kMost) timings_.clear();
    timings_.insert_or_assign(key_of(shape), timing);
  }

 private:
  static constexpr std::size_t kMost = 1024;

  using Key = std::array<std::uint64_t, 5>;
  struct Hash {
    std::size_t operator()(const Key& key) const {
      std::uint64_t hash = 0;
      for (const std::uint64_t word : key) hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
      return hash ^ hash >> 32;
    }
  };

  // All of a shape but where it lies and whether a timeline is wanted.
  static Key key_of(const model::GemmShape& shape) {
    const std::uint64_t rest = std::uint64_t{shape.input_bytes} << 32 |
                               std::uint64_t{shape.output_bytes} << 2 | (shape.bias ? 2u : 0u) |
                               (shape.accumulate ? 1u : 0u);
    return {shape.m, shape.n, shape.k, shape.batch, rest};
  }

  std::unordered_map<Key, model::GemmTiming, Hash> timings_;
};

}  // namespace shmgemm::engine
