// The older fixed records (abi/virtio_sst.h): a request becomes a flushed command of stream 0 and
// goes the way of all commands; its answer is made of the completion. Its data never lie in the
// region but in the record itself.
#pragma once

#include <cstddef>

#include "abi/shmgemm_abi.h"
#include "abi/virtio_sst.h"

namespace shmgemm::engine {

// In private memory, with room for the answer.
struct Request {
  virtio_sst_request asked;
  virtio_sst_response answer;
};

// Fills in `command` but for device and generation. OK, or what is wrong with the request.
shmgemm_status command_of(const virtio_sst_request& asked, shmgemm_command& command);
// What a READ fills or a WRITE takes.
std::byte* data_of(Request& request);
// `info` is that of a GET_INFO that ended well; else it is not looked at.
void make_answer(Request& request, const shmgemm_completion& completion, const shmgemm_info& info);

}  // namespace shmgemm::engine
