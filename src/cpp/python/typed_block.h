// A block with a shape and an element type: what NumPy and torch see of the region.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "client/session.h"

namespace shmgemm {

struct TypedBlock {
  std::shared_ptr<Block> block;
  std::vector<std::int64_t> shape;  // row-major, packed
  std::uint8_t dtype;
};

std::uint64_t packed_bytes(const std::vector<std::int64_t>& shape, std::uint8_t dtype);

}  // namespace shmgemm
