// A single-producer single-consumer ring of fixed records in shared memory. Each slot ends in a
// sequence word that the producer writes last, so there are no shared indices, no locks and no
// compare-and-swap. The ring never overflows because its producer holds a credit for each slot it
// fills (see client/channel.h).
#pragma once

#include <cstdint>
#include <cstring>

#include "abi/shmgemm_abi.h"

namespace shmgemm::region {

// The peer may scribble over a record while it is read, so every shared word is read once,
// atomically.
template <class Record>
struct RecordWords {
  static constexpr unsigned kWords = sizeof(Record) / 8;
  static_assert(sizeof(Record) % 8 == 0 && offsetof(Record, seq) == sizeof(Record) - 4);

  static void store(Record* slot, const Record& record) {
    std::uint64_t words[kWords];
    std::memcpy(words, &record, sizeof record);
    auto* to = reinterpret_cast<std::uint64_t*>(slot);
    for (unsigned i = 0; i + 1 < kWords; ++i) __atomic_store_n(to + i, words[i], __ATOMIC_RELAXED);
    auto* tail = reinterpret_cast<std::uint32_t*>(to + kWords - 1);
    __atomic_store_n(tail, static_cast<std::uint32_t>(words[kWords - 1]), __ATOMIC_RELAXED);
  }

  static void load(Record& record, const Record* slot) {
    std::uint64_t words[kWords];
    const auto* from = reinterpret_cast<const std::uint64_t*>(slot);
    for (unsigned i = 0; i < kWords; ++i) words[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    std::memcpy(&record, words, sizeof record);
  }
};

template <class Record>
class RingProducer {
 public:
  RingProducer(Record* slots, std::uint32_t count) : slots_(slots), mask_(count - 1) {}

  // seq_cst, because the caller then reads the consumer's sleeping flag (see waiter.h).
  void publish(const Record& record) {
    Record* slot = slots_ + (next_ & mask_);
    RecordWords<Record>::store(slot, record);
    __atomic_store_n(&slot->seq, ++next_, __ATOMIC_SEQ_CST);
  }

 private:
  Record* slots_;
  std::uint32_t mask_;
  std::uint32_t next_ = 0;  // records published, modulo 2^32
};

template <class Record>
class RingConsumer {
 public:
  RingConsumer(Record* slots, std::uint32_t count) : slots_(slots), mask_(count - 1) {}

  bool ready() const {
    return __atomic_load_n(&slots_[next_ & mask_].seq, __ATOMIC_SEQ_CST) == next_ + 1;
  }

  // Takes a private snapshot of the next record; false where there is none.
  bool poll(Record& record) {
    const Record* slot = slots_ + (next_ & mask_);
    if (__atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE) != next_ + 1) return false;
    RecordWords<Record>::load(record, slot);
    ++next_;
    return true;
  }

 private:
  Record* slots_;
  std::uint32_t mask_;
  std::uint32_t next_ = 0;  // records taken, modulo 2^32
};

}  // namespace shmgemm::region
