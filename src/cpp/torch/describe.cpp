#include "torch/describe.h"

#include <limits>

namespace shmgemm::torch_op {
namespace {

std::uint8_t dtype_code(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return SHMGEMM_DTYPE_FLOAT32;
    case at::kHalf:
      return SHMGEMM_DTYPE_FLOAT16;
    case at::kBFloat16:
      return SHMGEMM_DTYPE_BFLOAT16;
    case at::kChar:
      return SHMGEMM_DTYPE_INT8;
    default:
      return SHMGEMM_DTYPE_NONE;
  }
}

bool fits(std::int64_t size) {
  return size > 0 && size <= std::numeric_limits<std::int32_t>::max();
}

// A as rows x columns: a matrix, or leading dimensions that fold into rows with one stride.
bool as_rows(const at::Tensor& tensor, MatrixView* view, std::int64_t* rows) {
  view->data = tensor.const_data_ptr();
  if (tensor.dim() == 2) {
    *rows = tensor.size(0);
    view->row_stride = tensor.stride(0);
    view->column_stride = tensor.stride(1);
    return true;
  }
  const std::int64_t columns = tensor.dim() == 0 ? 0 : tensor.size(-1);
  if (columns == 0 || (columns > 1 && tensor.stride(-1) != 1)) return false;
  *rows = 1;
  view->row_stride = columns;
  view->column_stride = 1;
  for (std::int64_t i = tensor.dim() - 2; i >= 0; --i) {
    if (tensor.size(i) == 1) continue;
    if (*rows == 1) view->row_stride = tensor.stride(i);
    if (tensor.stride(i) != *rows * view->row_stride) return false;
    *rows *= tensor.size(i);
  }
  return true;
}

MatrixView matrix(const at::Tensor& tensor) {
  const std::int64_t last = tensor.dim() - 1;
  return {tensor.const_data_ptr(), tensor.dim() == 3 ? tensor.stride(0) : 0,
          tensor.stride(last - 1), tensor.stride(last)};
}

bool is_device(std::int64_t sim_device) { return sim_device >= 0 && sim_device <= 255; }

void fill(Described& described, std::string_view label, std::int64_t rows, std::int64_t n,
          std::int64_t k, std::uint8_t code, at::ScalarType type, std::int64_t sim_device) {
  GemmCall& call = described.call;
  call.name = interned(label);
  call.m = static_cast<std::uint32_t>(rows);
  call.n = static_cast<std::uint32_t>(n);
  call.k = static_cast<std::uint32_t>(k);
  call.dtype_in = code;
  call.dtype_out = code == SHMGEMM_DTYPE_INT8 ? std::uint8_t{SHMGEMM_DTYPE_INT32} : code;
  call.device = static_cast<std::uint8_t>(sim_device);
  call.stream = current_stream();
  described.out_type = code == SHMGEMM_DTYPE_INT8 ? at::kInt : type;
  described.shape.back() = n;
}

}  // namespace

std::uint64_t Described::result_bytes() const {
  return std::uint64_t{call.m} * call.n * call.batch * at::elementSize(out_type);
}

void Described::put_result(void* data) {
  call.c = {data, std::int64_t{call.m} * call.n, call.n, 1};
}

bool describe_gemm(const at::Tensor& a, const at::Tensor& b, std::int64_t sim_device,
                   std::string_view label, Described& described) {
  const std::uint8_t code = dtype_code(a.scalar_type());
  const bool batched = a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0) && b.stride(0) != 0;
  if (code == SHMGEMM_DTYPE_NONE || a.scalar_type() != b.scalar_type() || a.dim() < 2 ||
      !(batched || b.dim() == 2) || a.size(-1) != b.size(-2) || !is_device(sim_device)) {
    return false;
  }
  GemmCall& call = described.call;
  std::int64_t rows = 0;
  if (batched) {
    call.a = matrix(a);
    rows = a.size(1);
    if (!fits(a.size(0))) return false;
    call.batch = static_cast<std::uint32_t>(a.size(0));
  } else if (!as_rows(a, &call.a, &rows)) {
    return false;
  }
  if (!fits(rows) || !fits(b.size(-1)) || !fits(b.size(-2))) return false;
  call.b = matrix(b);
  described.shape = a.sizes();
  fill(described, label, rows, b.size(-1), b.size(-2), code, a.scalar_type(), sim_device);
  return true;
}

bool describe_linear(const at::Tensor& input, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                     std::string_view label, Described& described) {
  const std::uint8_t code = dtype_code(input.scalar_type());
  GemmCall& call = described.call;
  std::int64_t rows = 0;
  if (code == SHMGEMM_DTYPE_NONE || input.scalar_type() != weight.scalar_type() ||
      weight.dim() != 2 || input.dim() < 1 || input.size(-1) != weight.size(1) ||
      !as_rows(input, &call.a, &rows) || !fits(rows) || !fits(weight.size(0)) ||
      !fits(weight.size(1)) || !is_device(sim_device)) {
    return false;
  }
  described.shape = input.sizes();
  fill(described, label, rows, weight.size(0), weight.size(1), code, input.scalar_type(),
       sim_device);
  if (bias && bias->defined()) {
    if (bias->dim() != 1 || bias->size(0) != weight.size(0) ||
        bias->scalar_type() != described.out_type) {
      return false;
    }
    const at::ScalarType wanted = described.out_type == at::kInt ? at::kInt : at::kFloat;
    described.device_bias = bias->scalar_type() == wanted && bias->is_contiguous()
                                ? *bias
                                : bias->detach().to(wanted).contiguous();
    call.bias = described.device_bias.const_data_ptr();
  }
  call.b = {weight.const_data_ptr(), 0, weight.stride(1), weight.stride(0)};
  return true;
}

at::Tensor tensor_in(const std::shared_ptr<Block>& block, void* data, at::IntArrayRef shape,
                     at::ScalarType type) {
  auto held = std::make_unique<std::shared_ptr<Block>>(block);
  return at::for_blob(data, shape)
      .context(held.release(),
               [](void* context) { delete static_cast<std::shared_ptr<Block>*>(context); })
      .options(at::TensorOptions().dtype(type))
      .make_tensor();
}

}  // namespace shmgemm::torch_op
