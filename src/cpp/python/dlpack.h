// The structures of DLPack 0.8 (dmlc/dlpack, include/dlpack/dlpack.h), as much as a CPU exporter
// needs.
#pragma once

#include <cstdint>

namespace shmgemm::dlpack {

enum : std::int32_t { kCpu = 1 };
enum : std::uint8_t { kInt = 0, kFloat = 2, kBfloat = 4 };

struct Device {
  std::int32_t type;
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* manager;
  void (*deleter)(ManagedTensor*);
};

}  // namespace shmgemm::dlpack
