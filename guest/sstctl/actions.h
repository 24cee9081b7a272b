// What sstctl can do, each one line of output or a few; Failure where it does not come out right.
#pragma once

#include <cstdint>
#include <string>

#include "device_file.h"

namespace shmgemm::sstctl {

void ping(DeviceFile& device);
void echo(DeviceFile& device, const std::string& text);
void compute(DeviceFile& device, std::uint64_t units);
void show_info(DeviceFile& device);
void gemm(DeviceFile& device, std::uint32_t m, std::uint32_t n, std::uint32_t k);

}  // namespace shmgemm::sstctl
