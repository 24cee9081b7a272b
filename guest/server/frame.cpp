#include "frame.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "abi/shmgemm_abi.h"

namespace shmgemm::server {
namespace {

constexpr const char* kMatrixNames[] = {"A", "B", "bias"};
constexpr std::size_t kFirstBytes = 64u << 10;  // taken for a part before any of it is there

std::uint32_t big_endian(const std::byte* at) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::uint32_t>(at[i]);
  return value;
}

std::string hex(std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08X", value);
  return text;
}

[[noreturn]] void refuse(const std::string& field, const std::string& came,
                         const std::string& expected) {
  throw ProtocolError(field + ": " + came + " came, " + expected + " expected");
}

void check_payload_bytes(Op op, std::uint64_t bytes) {
  const std::string came = std::to_string(bytes);
  const std::string field = std::string("payload length of ") + op_name(op);
  if (op == Op::kStatus) {
    if (bytes != 0) refuse(field, came, "0");
  } else if (op == Op::kCommands) {
    constexpr std::uint64_t size = sizeof(shmgemm_command);
    if (bytes == 0 || bytes % size != 0 || bytes / size > kMaxCommandsPerFrame) {
      refuse(field, came, "1 to " + std::to_string(kMaxCommandsPerFrame) + " times 128 bytes");
    }
  } else if (bytes == 0 || bytes > kMaxJsonBytes) {
    refuse(field, came, "1 to " + std::to_string(kMaxJsonBytes) + " bytes of JSON");
  }
}

}  // namespace

const char* op_name(Op op) {
  switch (op) {
    case Op::kGemm:
      return "op 0 GEMM";
    case Op::kLinear:
      return "op 1 LINEAR";
    case Op::kCommands:
      return "op 16 COMMANDS";
    case Op::kStatus:
      return "op 17 STATUS";
  }
  return "unknown op";
}

std::size_t FrameReader::feed(std::span<const std::byte> bytes) {
  std::size_t used = 0;
  if (state_ == State::kRoom) reserve();
  while (used < bytes.size() && !complete() && !waits_for_room()) {
    used += fill(part(), part_bytes(), bytes.subspan(used));
    if (part().size() < part_bytes()) continue;
    switch (state_) {
      case State::kHeader:
        header_done();
        break;
      case State::kPayload:
        payload_done();
        break;
      case State::kSize:
        size_done();
        break;
      default:
        next_matrix();
    }
  }
  return used;
}

Frame FrameReader::take() {
  state_ = State::kHeader;
  small_.clear();
  return std::exchange(frame_, {});
}

std::string FrameReader::missing() const {
  auto* self = const_cast<FrameReader*>(this);
  const std::uint64_t came = self->part().size();
  std::string what = "the header";
  if (state_ == State::kPayload) what = std::string("the payload of ") + op_name(frame_.op);
  if (state_ == State::kSize) what = std::string("the size of ") + kMatrixNames[matrix_];
  if (state_ == State::kMatrix) what = kMatrixNames[matrix_];
  return std::to_string(came) + " of " + std::to_string(part_bytes()) + " bytes of " + what;
}

// Doubles a part's memory as its bytes come: a size that is announced costs nothing yet.
std::size_t FrameReader::fill(Bytes& target, std::uint64_t whole,
                              std::span<const std::byte> bytes) {
  const std::size_t count = std::min<std::uint64_t>(whole - target.size(), bytes.size());
  const std::size_t needed = target.size() + count;
  if (needed > target.capacity()) {
    target.reserve(std::min<std::uint64_t>(whole, std::max(kFirstBytes, 2 * needed)));
  }
  target.insert(target.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
  frame_.bytes += count;
  return count;
}

void FrameReader::header_done() {
  const std::uint32_t magic = big_endian(small_.data());
  if (magic != kMagic) refuse("magic", hex(magic), hex(kMagic));
  payload_bytes_ = big_endian(small_.data() + 4);
  const auto op = std::to_integer<std::uint8_t>(small_[8]);
  small_.clear();
  if (op != 0 && op != 1 && op != 16 && op != 17) {
    refuse("op", std::to_string(op), "0 GEMM, 1 LINEAR, 16 COMMANDS or 17 STATUS");
  }
  frame_.op = static_cast<Op>(op);
  check_payload_bytes(frame_.op, payload_bytes_);
  state_ = payload_bytes_ == 0 ? State::kComplete : State::kPayload;
}

void FrameReader::payload_done() {
  if (frame_.op == Op::kCommands) {
    state_ = State::kComplete;
    return;
  }
  const auto* text = reinterpret_cast<const char*>(frame_.payload.data());
  frame_.request = parse_inline_request({text, frame_.payload.size()}, max_matrix_bytes_);
  matrix_ = 0;
  reserve();
}

void FrameReader::reserve() {
  frame_.reservation = budget_.reserve(frame_.request.total_bytes());
  state_ = frame_.reservation ? State::kSize : State::kRoom;
}

void FrameReader::size_done() {
  const std::uint64_t came = big_endian(small_.data());
  small_.clear();
  const std::uint64_t expected = matrix_bytes(matrix_);
  if (came != expected) {
    refuse(std::string("size of ") + kMatrixNames[matrix_], std::to_string(came) + " bytes",
           std::to_string(expected) + " by " + frame_.request.text());
  }
  state_ = State::kMatrix;
}

void FrameReader::next_matrix() {
  ++matrix_;
  const int count = frame_.request.has_bias ? 3 : 2;
  state_ = matrix_ == count ? State::kComplete : State::kSize;
}

std::uint64_t FrameReader::matrix_bytes(int index) const {
  const InlineRequest& request = frame_.request;
  return index == 0   ? request.a_bytes()
         : index == 1 ? request.b_bytes()
                      : request.bias_total_bytes();
}

Bytes& FrameReader::part() {
  if (state_ == State::kPayload) return frame_.payload;
  if (state_ == State::kMatrix) return frame_.matrices[matrix_];
  return small_;
}

std::uint64_t FrameReader::part_bytes() const {
  switch (state_) {
    case State::kHeader:
      return kHeaderBytes;
    case State::kPayload:
      return payload_bytes_;
    case State::kSize:
      return kSizeBytes;
    case State::kMatrix:
      return matrix_bytes(matrix_);
    default:
      return 0;
  }
}

}  // namespace shmgemm::server
