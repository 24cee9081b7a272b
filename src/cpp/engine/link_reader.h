// Takes a link's byte stream apart (abi/shmgemm_link.h) without trusting any of it: bytes go in as
// the socket gives them, records come out as private copies. No input or output happens here.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "abi/shmgemm_link.h"
#include "abi/virtio_sst.h"

namespace shmgemm::engine {

class LinkReader {
 public:
  enum class Found { kNothing, kHello, kCommand, kRequest, kFailed, kBad };

  LinkReader() : buffer_(kBytes) {}

  std::byte* space();  // where to put bytes, up to room() of them, which is above 0 after kNothing
  std::size_t room() const { return buffer_.size() - end_; }
  void received(std::size_t bytes) { end_ += bytes; }

  // The next record, in one of the following until the next call. After kBad or kFailed, no more.
  Found next();
  const shmgemm_link_hello& hello() const { return hello_; }
  const shmgemm_command& command() const { return command_; }
  const virtio_sst_request& request() const { return request_; }
  const std::string& text() const { return text_; }  // of kFailed, or what is wrong

 private:
  static constexpr std::size_t kBytes = sizeof(shmgemm_link_head) + SHMGEMM_LINK_MAX_BYTES;

  Found begin_frame();
  bool size_is_good() const;
  bool hello_is_good();
  Found bad(const std::string& text);
  template <class Record>
  bool take(Record& record);

  std::vector<std::byte> buffer_;
  std::size_t begin_ = 0;  // [begin_, end_) is not yet looked at
  std::size_t end_ = 0;
  bool greeted_ = false;
  bool over_ = false;
  shmgemm_link_head head_{};  // of the frame begun; `bytes` counts those not yet taken, 0 = none
  shmgemm_link_hello hello_{};
  shmgemm_command command_{};
  virtio_sst_request request_{};
  std::string text_;
};

}  // namespace shmgemm::engine
