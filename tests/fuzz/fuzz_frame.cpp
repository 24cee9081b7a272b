// libFuzzer: the frame parser of the device server. However a stream is cut, it gives the same
// frames and the same error; an accepted frame has the sizes its header and JSON say, and memory is
// given back.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "server/frame.h"

namespace {

using namespace shmgemm::server;

constexpr std::uint64_t kMaxMatrixBytes = 1 << 14;
constexpr std::uint64_t kBudget = 4 * kMaxMatrixBytes;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "property violated: %s\n", what);
  std::abort();
}

void check(const Frame& frame) {
  if (frame.op == Op::kStatus) {
    require(frame.bytes == kHeaderBytes, "STATUS is a header alone");
  } else if (frame.op == Op::kCommands) {
    const std::size_t bytes = frame.payload.size();
    require(bytes > 0 && bytes % 128 == 0 && bytes / 128 <= kMaxCommandsPerFrame, "commands");
  } else {
    const InlineRequest& request = frame.request;
    require(request.m > 0 && request.n > 0 && request.k > 0, "dimensions");
    const std::uint64_t unit = input_bytes(request.element);
    require(frame.matrices[0].size() == unit * request.m * request.k, "A");
    require(frame.matrices[1].size() == unit * request.k * request.n, "B");
    const std::uint64_t bias = request.has_bias ? bias_bytes(request.element) * request.n : 0;
    require(frame.matrices[2].size() == bias, "bias");
    for (const Bytes& matrix : frame.matrices) require(matrix.size() <= kMaxMatrixBytes, "size");
    require(request.c_bytes() <= kMaxMatrixBytes, "C");
  }
}

// Everything that came out of a stream, in a form that can be compared.
std::string read(std::span<const std::byte> bytes, std::size_t step) {
  Budget budget(kBudget);
  std::string seen;
  {
    FrameReader reader(budget, kMaxMatrixBytes);
    try {
      for (std::size_t at = 0; at < bytes.size();) {
        const auto piece = bytes.subspan(at, std::min(step, bytes.size() - at));
        const std::size_t used = reader.feed(piece);
        require(used <= piece.size(), "used what was there");
        require(!reader.waits_for_room(), "one frame fits the budget");
        require(used == piece.size() || reader.complete(), "stops at a frame's end alone");
        at += used;
        if (!reader.complete()) continue;
        const Frame frame = reader.take();
        check(frame);
        require(!reader.in_frame(), "between frames");
        seen += std::string(op_name(frame.op)) + " " + std::to_string(frame.bytes) + "\n";
      }
      if (reader.in_frame()) seen += reader.missing();
    } catch (const ProtocolError& error) {
      seen += error.what();
    }
  }
  require(static_cast<bool>(budget.reserve(kBudget)), "the budget is whole again");
  return seen;
}

// Random bytes seldom begin a frame: half of the inputs are given a right beginning.
std::vector<std::byte> stream(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes;
  if (data[0] & 1) {
    const std::size_t json = std::min<std::size_t>(size - 1, data[0] >> 1);
    for (const unsigned byte : {0xdeu, 0xadu, 0xbeu, 0xefu, 0u, 0u, 0u}) {
      bytes.push_back(static_cast<std::byte>(byte));
    }
    bytes.push_back(static_cast<std::byte>(json));
    bytes.push_back(std::byte{0});
  }
  const auto* rest = reinterpret_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), rest + 1, rest + size);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::vector<std::byte> bytes = stream(data, size);
  const std::string whole = read(bytes, bytes.size());
  require(read(bytes, 1) == whole, "byte by byte as in one piece");
  require(read(bytes, 1 + data[size - 1] % 64) == whole, "in pieces as in one piece");
  return 0;
}
