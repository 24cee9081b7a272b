#include "torch/kernels.h"

#include <ATen/ATen.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "client/session.h"
#include "python/gil.h"
#include "torch/python_side.h"

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

class ScopeGuard {
 public:
  explicit ScopeGuard(std::string_view inner) : set_(!inner.empty()) {
    if (!set_) return;
    outer_ = scope();
    set_scope(std::string(inner));
  }
  ~ScopeGuard() {
    if (set_) set_scope(outer_);
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  bool set_;
  std::string outer_;
};

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

at::Tensor allocate(Session& session, at::IntArrayRef shape, at::ScalarType type) {
  std::uint64_t bytes = at::elementSize(type);
  for (const std::int64_t size : shape) bytes *= static_cast<std::uint64_t>(size);
  auto block = std::make_unique<std::shared_ptr<Block>>(session.allocate(bytes));
  void* const data = (*block)->data();
  return at::for_blob(data, shape)
      .context(block.release(),
               [](void* held) { delete static_cast<std::shared_ptr<Block>*>(held); })
      .options(at::TensorOptions().dtype(type))
      .make_tensor();
}

// Runs one command into a fresh tensor; what fails goes to Python, which falls back or raises.
at::Tensor run(Session& session, GemmCall& call, at::IntArrayRef shape, at::ScalarType out_type,
               std::string_view scope, const at::Tensor& a, const at::Tensor& b,
               const std::optional<at::Tensor>& bias) {
  const ScopeGuard guard(scope);
  try {
    const GilRelease unlocked;
    at::Tensor result = allocate(session, shape, out_type);
    call.c = {result.const_data_ptr(), std::int64_t{call.m} * call.n, call.n, 1};
    session.gemm(call);
    return result;
  } catch (const Interrupted&) {
    raise_interrupt();
  } catch (const Error& error) {
    return after_error(error, {call.m, call.n, call.k, call.batch}, shape, out_type, call.name, a,
                       b, bias);
  }
}

}  // namespace

at::Tensor gemm_cpu(const at::Tensor& a, const at::Tensor& b,
                    std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                    std::string_view scope, std::string_view label) {
  const auto session = current_session_or_null();
  const std::uint8_t code = dtype_code(a.scalar_type());
  const bool batched = a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0) && b.stride(0) != 0;
  GemmCall call;
  std::int64_t rows = 0;
  bool simple = session != nullptr && code != SHMGEMM_DTYPE_NONE && !out_dtype &&
                a.scalar_type() == b.scalar_type() && a.dim() >= 2 && (batched || b.dim() == 2) &&
                a.size(-1) == b.size(-2) && sim_device >= 0 && sim_device <= 255;
  if (simple && batched) {
    call.a = matrix(a);
    rows = a.size(1);
    simple = fits(a.size(0));
  } else if (simple) {
    simple = as_rows(a, &call.a, &rows);
  }
  if (!simple || !fits(rows) || !fits(b.size(-1)) || !fits(b.size(-2))) {
    return python_gemm(a, b, out_dtype, sim_device, scope, label);
  }
  const at::ScalarType out_type = code == SHMGEMM_DTYPE_INT8 ? at::kInt : a.scalar_type();
  call.name = interned(label);
  call.m = static_cast<std::uint32_t>(rows);
  call.n = static_cast<std::uint32_t>(b.size(-1));
  call.k = static_cast<std::uint32_t>(b.size(-2));
  call.batch = batched ? static_cast<std::uint32_t>(a.size(0)) : 1;
  call.dtype_in = code;
  call.dtype_out = code == SHMGEMM_DTYPE_INT8 ? std::uint8_t{SHMGEMM_DTYPE_INT32} : code;
  call.b = matrix(b);
  call.device = static_cast<std::uint8_t>(sim_device);
  c10::SmallVector<std::int64_t, 5> shape(a.sizes());
  shape.back() = b.size(-1);
  return run(*session, call, shape, out_type, scope, a, b, std::nullopt);
}

at::Tensor linear_cpu(const at::Tensor& input, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                      std::string_view scope, std::string_view label) {
  const auto session = current_session_or_null();
  const std::uint8_t code = dtype_code(input.scalar_type());
  const bool has_bias = bias && bias->defined();
  GemmCall call;
  std::int64_t rows = 0;
  const bool simple = session != nullptr && code != SHMGEMM_DTYPE_NONE &&
                      input.scalar_type() == weight.scalar_type() && weight.dim() == 2 &&
                      input.dim() >= 1 && input.size(-1) == weight.size(1) &&
                      as_rows(input, &call.a, &rows) && fits(rows) && fits(weight.size(0)) &&
                      fits(weight.size(1)) && sim_device >= 0 && sim_device <= 255;
  const at::ScalarType out_type = code == SHMGEMM_DTYPE_INT8 ? at::kInt : input.scalar_type();
  if (!simple || (has_bias && (bias->dim() != 1 || bias->size(0) != weight.size(0) ||
                               bias->scalar_type() != out_type))) {
    return python_linear(input, weight, bias, sim_device, scope, label);
  }
  at::Tensor device_bias;  // as devices read it: dense, float32 for every float type
  if (has_bias) {
    const at::ScalarType wanted = out_type == at::kInt ? at::kInt : at::kFloat;
    device_bias = bias->scalar_type() == wanted && bias->is_contiguous()
                      ? *bias
                      : bias->detach().to(wanted).contiguous();
    call.bias = device_bias.const_data_ptr();
  }
  call.name = interned(label);
  call.m = static_cast<std::uint32_t>(rows);
  call.n = static_cast<std::uint32_t>(weight.size(0));
  call.k = static_cast<std::uint32_t>(weight.size(1));
  call.dtype_in = code;
  call.dtype_out = code == SHMGEMM_DTYPE_INT8 ? std::uint8_t{SHMGEMM_DTYPE_INT32} : code;
  call.b = {weight.const_data_ptr(), 0, weight.stride(1), weight.stride(0)};
  call.device = static_cast<std::uint8_t>(sim_device);
  c10::SmallVector<std::int64_t, 5> shape(input.sizes());
  shape.back() = weight.size(0);
  return run(*session, call, shape, out_type, scope, input, weight.detach().mT(), bias);
}

}  // namespace shmgemm::torch_op
