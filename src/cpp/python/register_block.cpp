// Block for Python: shape, dtype, the buffer protocol (NumPy) and __dlpack__ (torch). Whoever takes
// a view keeps the block alive, and with it the mapping, also after the session was closed.
#include <pybind11/stl.h>

#include <utility>

#include "abi/shmgemm_validate.h"
#include "python/bind.h"
#include "python/dlpack.h"
#include "python/typed_block.h"

namespace py = pybind11;

namespace shmgemm {
namespace {

const char* buffer_format(std::uint8_t dtype) {
  switch (dtype) {
    case SHMGEMM_DTYPE_FLOAT32:
      return "f";
    case SHMGEMM_DTYPE_FLOAT16:
      return "e";
    case SHMGEMM_DTYPE_BFLOAT16:
      return "H";  // NumPy has no bfloat16: its bits
    case SHMGEMM_DTYPE_INT8:
      return "b";
    default:
      return "i";
  }
}

dlpack::DataType dlpack_type(std::uint8_t dtype) {
  const auto bits = static_cast<std::uint8_t>(8 * shmgemm_dtype_bytes(dtype));
  switch (dtype) {
    case SHMGEMM_DTYPE_FLOAT32:
    case SHMGEMM_DTYPE_FLOAT16:
      return {dlpack::kFloat, bits, 1};
    case SHMGEMM_DTYPE_BFLOAT16:
      return {dlpack::kBfloat, bits, 1};
    default:
      return {dlpack::kInt, bits, 1};
  }
}

py::buffer_info buffer_of(const TypedBlock& block) {
  const auto element = static_cast<py::ssize_t>(shmgemm_dtype_bytes(block.dtype));
  std::vector<py::ssize_t> shape(block.shape.begin(), block.shape.end());
  std::vector<py::ssize_t> strides(shape.size());
  py::ssize_t stride = element;
  for (std::size_t i = shape.size(); i > 0; --i) {
    strides[i - 1] = stride;
    stride *= shape[i - 1];
  }
  return py::buffer_info(block.block->data(), element, buffer_format(block.dtype),
                         static_cast<py::ssize_t>(shape.size()), shape, strides);
}

// What a DLPack consumer holds until it calls the deleter.
struct Exported {
  dlpack::ManagedTensor managed{};
  std::shared_ptr<Block> block;
  std::vector<std::int64_t> shape;
};

void release_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, "dltensor") == 0) return;  // consumed: the consumer deletes it
  auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"));
  managed->deleter(managed);
}

py::object to_dlpack(const TypedBlock& block, const py::kwargs&) {
  auto exported = std::make_unique<Exported>();
  exported->block = block.block;
  exported->shape = block.shape;
  dlpack::ManagedTensor& managed = exported->managed;
  managed.tensor.data = block.block->data();
  managed.tensor.device = {dlpack::kCpu, 0};
  managed.tensor.ndim = static_cast<std::int32_t>(block.shape.size());
  managed.tensor.dtype = dlpack_type(block.dtype);
  managed.tensor.shape = exported->shape.data();
  managed.manager = exported.get();
  managed.deleter = [](dlpack::ManagedTensor* self) {
    delete static_cast<Exported*>(self->manager);
  };
  PyObject* capsule = PyCapsule_New(&managed, "dltensor", &release_capsule);
  if (capsule == nullptr) throw py::error_already_set();
  (void)exported.release();
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

std::uint64_t packed_bytes(const std::vector<std::int64_t>& shape, std::uint8_t dtype) {
  std::uint64_t bytes = shmgemm_dtype_bytes(dtype);
  if (bytes == 0) throw Unsupported("unknown dtype code " + std::to_string(dtype));
  for (const std::int64_t size : shape) {
    if (size < 0) throw Unsupported("negative size " + std::to_string(size));
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes)) {
      throw RegionFull("a tensor of more than 2^64 bytes was asked for");
    }
  }
  return bytes;
}

void register_block(py::module_& module) {
  py::class_<TypedBlock>(module, "Block", py::buffer_protocol())
      .def_property_readonly("shape",
                             [](const TypedBlock& self) { return py::tuple(py::cast(self.shape)); })
      .def_readonly("dtype", &TypedBlock::dtype)
      .def_property_readonly(
          "nbytes", [](const TypedBlock& self) { return packed_bytes(self.shape, self.dtype); })
      .def_property_readonly("offset", [](const TypedBlock& self) { return self.block->offset(); })
      .def_property_readonly("ptr",
                             [](const TypedBlock& self) {
                               return reinterpret_cast<std::uintptr_t>(self.block->data());
                             })
      .def_buffer(&buffer_of)
      .def("__dlpack__", &to_dlpack)
      .def("__dlpack_device__",
           [](const TypedBlock&) { return py::make_tuple(int{dlpack::kCpu}, 0); });
}

}  // namespace shmgemm
