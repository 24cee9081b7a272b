// Takes the frames of the wire protocol (docs/protocol.md) out of a TCP stream that may be cut
// anywhere. Each number is judged before it is acted on; what cannot be right is a ProtocolError,
// and memory is taken only as bytes arrive, out of a Budget.
//
//   frame   = header payload           header = >II B: magic, bytes of the payload, op
//   op 0, 1   payload is JSON; then A, B and, where it has a bias_shape, the bias, each after its
//   size (>I) op 16     payload is n commands of 128 bytes op 17     no payload
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "abi/shmgemm_wire.h"
#include "budget.h"
#include "inline_request.h"

namespace shmgemm::server {

inline constexpr std::uint32_t kMagic = SHMGEMM_WIRE_MAGIC;
inline constexpr std::size_t kHeaderBytes = SHMGEMM_WIRE_HEAD_BYTES;
inline constexpr std::size_t kSizeBytes = 4;
inline constexpr std::uint64_t kMaxJsonBytes = 64u << 10;
inline constexpr std::uint64_t kMaxCommandsPerFrame = 4096;

enum class Op : std::uint8_t {
  kGemm = SHMGEMM_WIRE_GEMM,
  kLinear = SHMGEMM_WIRE_LINEAR,
  kCommands = SHMGEMM_WIRE_COMMANDS,
  kStatus = SHMGEMM_WIRE_STATUS
};
const char* op_name(Op op);

using Bytes = std::vector<std::byte>;

struct Frame {
  Op op = Op::kStatus;
  Bytes payload;          // of op 16, the commands; of ops 0 and 1, their JSON
  InlineRequest request;  // of ops 0 and 1
  Bytes matrices[3];      // A, B, bias
  Budget::Reservation reservation;
  std::uint64_t bytes = 0;  // the whole frame's
};

class FrameReader {
 public:
  FrameReader(Budget& budget, std::uint64_t max_matrix_bytes)
      : budget_(budget), max_matrix_bytes_(max_matrix_bytes) {}

  // Uses bytes up to the end of one frame and says how many; a frame is then complete(), or all
  // were used, or the reader waits_for_room().
  std::size_t feed(std::span<const std::byte> bytes);
  bool complete() const { return state_ == State::kComplete; }
  bool waits_for_room() const { return state_ == State::kRoom; }
  Frame take();

  bool in_frame() const { return frame_.bytes != 0; }
  std::string missing() const;  // "12 of 64 bytes of A", for a stream that ends within a frame

 private:
  enum class State { kHeader, kPayload, kRoom, kSize, kMatrix, kComplete };

  std::size_t fill(Bytes& target, std::uint64_t whole, std::span<const std::byte> bytes);
  void header_done();
  void payload_done();
  void reserve();
  void size_done();
  void next_matrix();
  std::uint64_t matrix_bytes(int index) const;
  Bytes& part();  // what is being filled
  std::uint64_t part_bytes() const;

  Budget& budget_;
  const std::uint64_t max_matrix_bytes_;
  State state_ = State::kHeader;
  Bytes small_;  // header or size
  std::uint64_t payload_bytes_ = 0;
  int matrix_ = 0;
  Frame frame_;
};

}  // namespace shmgemm::server
