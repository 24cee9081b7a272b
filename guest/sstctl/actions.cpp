#include "actions.h"

#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace shmgemm::sstctl {
namespace {

const char* interrupts_text(std::uint32_t interrupts) {
  switch (interrupts) {
    case VIRTIO_SST_MSIX:
      return "MSI-X";
    case VIRTIO_SST_LINE:
      return "line";
    default:
      return "none: a timer looks for answers";
  }
}

}  // namespace

void ping(DeviceFile& device) {
  const auto begin = std::chrono::steady_clock::now();
  device.request(SHMGEMM_OP_NOOP, nullptr, 0);
  const auto taken = std::chrono::steady_clock::now() - begin;
  std::printf("pong: the engine answered in %.0f us\n",
              std::chrono::duration<double, std::micro>(taken).count());
}

void echo(DeviceFile& device, const std::string& text) {
  if (text.size() > VIRTIO_SST_PAYLOAD_BYTES) {
    throw Failure("echo: " + std::to_string(text.size()) + " bytes given, at most " +
                  std::to_string(VIRTIO_SST_PAYLOAD_BYTES) + " expected");
  }
  const virtio_sst_response response = device.request(SHMGEMM_OP_ECHO, text.data(), text.size());
  if (std::memcmp(response.payload, text.data(), text.size()) != 0) {
    throw Failure("echo: other bytes came back than were sent");
  }
  std::printf("%.*s\n", static_cast<int>(text.size()),
              reinterpret_cast<const char*>(response.payload));
}

void compute(DeviceFile& device, std::uint64_t units) {
  const virtio_sst_compute_request request{units, 0, 0};
  const virtio_sst_response response = device.request(SHMGEMM_OP_COMPUTE, &request, sizeof request);
  virtio_sst_compute_response done;
  std::memcpy(&done, response.payload, sizeof done);
  std::printf("%" PRIu64 " units: %" PRIu64 " cycles, ended at cycle %" PRIu64 "\n", units,
              done.cycles, done.timestamp);
}

void show_info(DeviceFile& device) {
  const virtio_sst_info info = device.info();
  std::printf("driver           ABI %u.%u, device %u, interrupts: %s\n", info.abi_major,
              info.abi_minor, info.index, interrupts_text(info.interrupts));
  std::printf("region           %" PRIu64 " bytes\n", info.region_bytes);
  std::printf("engine           %s\n", info.connected != 0 ? "connected" : "not connected");
  const virtio_sst_response response = device.request(SHMGEMM_OP_GET_INFO, nullptr, 0);
  virtio_sst_info_response found;
  std::memcpy(&found, response.payload, sizeof found);
  std::printf("version          %u.%u, generation %u\n", found.version >> 16,
              found.version & 0xffffu, info.generation);
  std::printf("devices          %u at %" PRIu64 " Hz\n", info.devices, info.clock_hz);
  std::printf("capabilities     0x%x\n", found.capabilities);
  std::printf("max compute      %" PRIu64 " units\n", found.max_compute_units);
  std::printf("device memory    %" PRIu64 " bytes\n", found.memory_bytes);
}

}  // namespace shmgemm::sstctl
