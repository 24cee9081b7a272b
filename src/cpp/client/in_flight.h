// One product from its submission to its result: its operands placed or staged, the report it asked
// for, and what becomes of both when the engine answers. Whoever waits for it finishes it; where
// nobody does any more, its channel keeps it until the answer has come, and it is counted still.
#pragma once

#include <cstdint>
#include <memory>

#include "client/channel.h"
#include "client/ledger.h"
#include "client/product.h"

namespace shmgemm::client {

class InFlight final : public Orphan {
 public:
  // RegionFull where something cannot be staged.
  InFlight(Heap& heap, Ledger& ledger, const GemmCall& call);

  shmgemm_command command() const;
  void sent_to(std::uint32_t generation) { origin_.generation = generation; }  // of engines
  void finish(const shmgemm_completion& completion);  // it succeeded: C holds the result
  void ended(const shmgemm_completion& completion) override;
  const GemmCall& call() const { return product_.call(); }

 private:
  void count(const shmgemm_completion& completion);

  Ledger& ledger_;
  const bool profiling_;
  Origin origin_;  // while someone profiles
  Product product_;
  std::shared_ptr<Block> report_;  // null: none was asked for
};

}  // namespace shmgemm::client
