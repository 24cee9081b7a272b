#include "engine/older_records.h"

#include <cstdint>
#include <cstring>

namespace shmgemm::engine {
namespace {

constexpr std::uint32_t kServedTypes = (1u << (SHMGEMM_OP_CONFIGURE + 1)) - 1;

template <class Record>
Record read(const std::uint8_t* payload) {
  Record record;
  std::memcpy(&record, payload, sizeof record);
  return record;
}

template <class Record>
void write(virtio_sst_response& answer, const Record& record) {
  std::memcpy(answer.payload, &record, sizeof record);
}

// These records know six statuses.
std::uint32_t older_status(std::uint32_t status) {
  if (status <= SHMGEMM_STATUS_NO_DEVICE) return status;
  return status == SHMGEMM_STATUS_UNSUPPORTED ? SHMGEMM_STATUS_ERROR : SHMGEMM_STATUS_INVALID;
}

}  // namespace

shmgemm_status command_of(const virtio_sst_request& asked, shmgemm_command& command) {
  if (asked.type > SHMGEMM_OP_CONFIGURE) return SHMGEMM_STATUS_BAD_OP;
  command.op = static_cast<std::uint8_t>(asked.type);
  command.flags = SHMGEMM_FLAG_FLUSH;
  if (asked.type == SHMGEMM_OP_COMPUTE) {
    const auto compute = read<virtio_sst_compute_request>(asked.payload);
    command.arg[0] = compute.compute_units;
    command.arg[1] = compute.latency_model;
  } else if (asked.type == SHMGEMM_OP_CONFIGURE) {
    const auto configure = read<virtio_sst_configure>(asked.payload);
    command.arg[0] = configure.parameter;
    command.arg[1] = configure.value;
  } else if (asked.type == SHMGEMM_OP_READ || asked.type == SHMGEMM_OP_WRITE) {
    const auto transfer = read<virtio_sst_transfer>(asked.payload);
    if (transfer.bytes == 0 || transfer.bytes > VIRTIO_SST_MAX_TRANSFER_BYTES) {
      return SHMGEMM_STATUS_BAD_SHAPE;
    }
    command.arg[0] = transfer.address;
    command.arg[1] = transfer.bytes;
  }
  return SHMGEMM_STATUS_OK;
}

std::byte* data_of(Request& request) {
  std::uint8_t* const payload =
      request.asked.type == SHMGEMM_OP_READ ? request.answer.payload : request.asked.payload;
  return reinterpret_cast<std::byte*>(payload + sizeof(virtio_sst_transfer));
}

void make_answer(Request& request, const shmgemm_completion& completion, const shmgemm_info& info) {
  const virtio_sst_request& asked = request.asked;
  virtio_sst_response& answer = request.answer;
  answer.status = older_status(completion.status);
  answer.id = asked.id;
  answer.user = asked.user;
  if (completion.status != SHMGEMM_STATUS_OK) return;
  const std::uint64_t cycles = completion.end_cycles - completion.start_cycles;
  switch (asked.type) {
    case SHMGEMM_OP_ECHO:
      std::memcpy(answer.payload, asked.payload, sizeof answer.payload);
      break;
    case SHMGEMM_OP_COMPUTE:
      answer.result = cycles;
      write(answer, virtio_sst_compute_response{cycles, completion.end_cycles});
      break;
    case SHMGEMM_OP_READ:
    case SHMGEMM_OP_WRITE:
      answer.result = read<virtio_sst_transfer>(asked.payload).bytes;
      std::memcpy(answer.payload, asked.payload, sizeof(virtio_sst_transfer));
      break;
    case SHMGEMM_OP_GET_INFO:
      write(answer, virtio_sst_info_response{info.abi_major << 16 | info.abi_minor, kServedTypes,
                                             info.max_compute_units, info.memory_bytes});
      break;
    default:
      break;
  }
}

}  // namespace shmgemm::engine
