// One product on its way to the device: operands placed or staged, the command that names them, and
// the result fetched back where it was staged.
#pragma once

#include <cstdint>
#include <string>

#include "client/heap.h"
#include "client/operand.h"
#include "client/session.h"

namespace shmgemm::client {

class Product {
 public:
  // Holds its blocks until it is destroyed. RegionFull where something cannot be staged.
  Product(Heap& heap, const GemmCall& call);

  shmgemm_command command() const;
  void fetch();  // after the completion: the caller's C holds the result
  std::uint64_t bytes_copied() const { return bytes_copied_; }
  const GemmCall& call() const { return call_; }

 private:
  const GemmCall call_;
  Operand a_, b_, c_, bias_;
  std::uint64_t bytes_copied_ = 0;
};

std::uint64_t macs_of(const GemmCall& call);
std::uint64_t bytes_of(const GemmCall& call);  // of A, B, bias and C
std::string text_of(const GemmCall& call);     // "linear 32x128 @ 128x256"

}  // namespace shmgemm::client
