#include "torch/kernels.h"

#include <string>

#include "python/gil.h"
#include "torch/describe.h"
#include "torch/python_side.h"

namespace shmgemm::torch_op {
namespace {

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

// Runs one command into a fresh tensor; what fails goes to Python, which falls back or raises.
at::Tensor run(Session& session, Described& described, std::string_view scope, const at::Tensor& a,
               const at::Tensor& b, const std::optional<at::Tensor>& bias) {
  const ScopeGuard guard(scope);
  try {
    const GilRelease unlocked;
    const auto block = session.allocate(described.result_bytes());
    described.put_result(block->data());
    session.gemm(described.call);
    return tensor_in(block, block->data(), described.shape, described.out_type);
  } catch (const Interrupted&) {
    raise_interrupt();
  } catch (const Error& error) {
    return after_error(error, described, a, b, bias);
  }
}

}  // namespace

at::Tensor gemm_cpu(const at::Tensor& a, const at::Tensor& b,
                    std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                    std::string_view scope, std::string_view label) {
  const auto session = current_session_or_null();
  Described described;
  if (session == nullptr || out_dtype || !describe_gemm(a, b, sim_device, label, described)) {
    return python_gemm(a, b, out_dtype, sim_device, scope, label);
  }
  return run(*session, described, scope, a, b, std::nullopt);
}

at::Tensor linear_cpu(const at::Tensor& input, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                      std::string_view scope, std::string_view label) {
  const auto session = current_session_or_null();
  Described described;
  if (session == nullptr || !describe_linear(input, weight, bias, sim_device, label, described)) {
    return python_linear(input, weight, bias, sim_device, scope, label);
  }
  return run(*session, described, scope, input, weight.detach().mT(), bias);
}

}  // namespace shmgemm::torch_op
