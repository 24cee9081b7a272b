// Throws bytes at the parser of links, cut as the first byte says, and checks that it hands out no
// more than came in, keeps room for more, and says nothing after it has refused.
#include <algorithm>
#include <cstring>

#include "engine/link_reader.h"

using shmgemm::engine::LinkReader;
using Found = LinkReader::Found;

namespace {

std::size_t bytes_of(Found found) {
  switch (found) {
    case Found::kHello:
      return sizeof(shmgemm_link_hello);
    case Found::kCommand:
      return sizeof(shmgemm_command);
    case Found::kRequest:
      return sizeof(virtio_sst_request);
    default:
      return 0;
  }
}

void require(bool condition) {
  if (!condition) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = 1 + std::size_t{data[0]} * 16;
  LinkReader reader;
  std::size_t out = 0;
  bool over = false;
  for (std::size_t at = 1; at < size;) {
    std::byte* const space = reader.space();
    const std::size_t bytes = std::min({piece, reader.room(), size - at});
    if (over && bytes == 0) return 0;
    require(bytes > 0);
    std::memcpy(space, data + at, bytes);
    reader.received(bytes);
    at += bytes;
    for (Found found = reader.next(); found != Found::kNothing; found = reader.next()) {
      require(!over);
      over = found == Found::kBad || found == Found::kFailed;
      if (over) require(!reader.text().empty());
      out += bytes_of(found);
      require(out < at);
    }
  }
  return 0;
}
