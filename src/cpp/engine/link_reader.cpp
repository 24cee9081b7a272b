#include "engine/link_reader.h"

#include <cstring>

namespace shmgemm::engine {
namespace {

std::string number(std::uint64_t value) { return std::to_string(value); }

std::string frame_text(const shmgemm_link_head& head) {
  static const char* const kNames[] = {"",        "HELLO",    "COMMANDS", "COMPLETIONS",
                                       "REQUEST", "RESPONSE", "FAILED",   "LEASE"};
  const std::string name = head.kind >= SHMGEMM_LINK_HELLO && head.kind <= SHMGEMM_LINK_LEASE
                               ? kNames[head.kind]
                               : "unknown";
  return "a frame of kind " + number(head.kind) + " (" + name + ") with " + number(head.bytes) +
         " bytes came";
}

std::string expected_text(std::uint32_t kind) {
  switch (kind) {
    case SHMGEMM_LINK_HELLO:
      return number(sizeof(shmgemm_link_hello)) + " bytes were expected";
    case SHMGEMM_LINK_COMMANDS:
      return "1 to " + number(SHMGEMM_RING_SLOTS) + " commands of " +
             number(sizeof(shmgemm_command)) + " bytes were expected";
    case SHMGEMM_LINK_REQUEST:
      return number(sizeof(virtio_sst_request)) + " bytes were expected";
    case SHMGEMM_LINK_FAILED:
      return "1 to " + number(SHMGEMM_LINK_TEXT_BYTES) + " bytes were expected";
    default:
      return "COMMANDS (2), REQUEST (4) or FAILED (6) was expected";
  }
}

}  // namespace

std::byte* LinkReader::space() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return buffer_.data() + end_;
}

LinkReader::Found LinkReader::next() {
  if (over_) return Found::kNothing;
  if (head_.bytes == 0) {
    if (!take(head_)) return Found::kNothing;
    if (begin_frame() == Found::kBad) return Found::kBad;
  }
  switch (head_.kind) {
    case SHMGEMM_LINK_HELLO:
      if (!take(hello_)) return Found::kNothing;
      greeted_ = true;
      head_.bytes = 0;
      return hello_is_good() ? Found::kHello : bad(text_);
    case SHMGEMM_LINK_COMMANDS:
      if (!take(command_)) return Found::kNothing;
      head_.bytes -= sizeof command_;
      return Found::kCommand;
    case SHMGEMM_LINK_REQUEST:
      if (!take(request_)) return Found::kNothing;
      head_.bytes = 0;
      return Found::kRequest;
    default:
      if (end_ - begin_ < head_.bytes) return Found::kNothing;
      text_.assign(reinterpret_cast<const char*>(buffer_.data() + begin_), head_.bytes);
      over_ = true;
      return Found::kFailed;
  }
}

LinkReader::Found LinkReader::begin_frame() {
  if (!greeted_ && head_.kind != SHMGEMM_LINK_HELLO && head_.kind != SHMGEMM_LINK_FAILED) {
    return bad(frame_text(head_) + " first: HELLO (1) was expected");
  }
  if (greeted_ && head_.kind == SHMGEMM_LINK_HELLO) return bad("a second HELLO came");
  if (!size_is_good()) return bad(frame_text(head_) + ": " + expected_text(head_.kind));
  return Found::kNothing;
}

bool LinkReader::size_is_good() const {
  switch (head_.kind) {
    case SHMGEMM_LINK_HELLO:
      return head_.bytes == sizeof(shmgemm_link_hello);
    case SHMGEMM_LINK_COMMANDS:
      return head_.bytes > 0 && head_.bytes <= SHMGEMM_LINK_MAX_BYTES &&
             head_.bytes % sizeof(shmgemm_command) == 0;
    case SHMGEMM_LINK_REQUEST:
      return head_.bytes == sizeof(virtio_sst_request);
    case SHMGEMM_LINK_FAILED:
      return head_.bytes > 0 && head_.bytes <= SHMGEMM_LINK_TEXT_BYTES;
    default:
      return false;
  }
}

bool LinkReader::hello_is_good() {
  if (hello_.magic != SHMGEMM_LINK_MAGIC) {
    text_ = "HELLO with another magic number came: not a shmgemm link";
  } else if (hello_.abi_major != SHMGEMM_ABI_MAJOR) {
    text_ = "HELLO of ABI version " + number(hello_.abi_major) + " came: this engine speaks " +
            number(SHMGEMM_ABI_MAJOR);
  } else if (hello_.role < SHMGEMM_LINK_QEMU || hello_.role > SHMGEMM_LINK_CLIENT) {
    text_ = "HELLO of role " + number(hello_.role) +
            " came: QEMU (2), SERVER (3) or CLIENT (4) was expected";
  } else {
    return true;
  }
  return false;
}

LinkReader::Found LinkReader::bad(const std::string& text) {
  text_ = text;
  over_ = true;
  return Found::kBad;
}

template <class Record>
bool LinkReader::take(Record& record) {
  if (end_ - begin_ < sizeof record) return false;
  std::memcpy(&record, buffer_.data() + begin_, sizeof record);
  begin_ += sizeof record;
  return true;
}

}  // namespace shmgemm::engine
