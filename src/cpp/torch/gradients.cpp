#include "torch/gradients.h"

#include <ATen/ATen.h>
#include <c10/core/AutogradState.h>
#include <torch/csrc/autograd/custom_function.h>

#include <string>
#include <tuple>

#include "torch/python_side.h"

namespace shmgemm::torch_op {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const AutogradContext& context,
                   std::string_view label) {
  const auto& scope = context.saved_data.at("scope").toStringRef();
  return gemm_op().call(a, b, std::nullopt, context.saved_data.at("device").toInt(), scope, label);
}

void save(AutogradContext* context, const at::Tensor& a, const at::Tensor& b,
          std::int64_t sim_device, std::string_view scope) {
  context->save_for_backward({a, b});
  context->saved_data["device"] = sim_device;
  context->saved_data["scope"] = std::string(scope);
}

at::Tensor rows_of(const at::Tensor& tensor) {
  return tensor.dim() == 2 ? tensor : tensor.reshape_symint({-1, tensor.sym_size(-1)});
}

at::Tensor reduced_to(const at::Tensor& gradient, const at::Tensor& operand) {
  return gradient.sym_sizes() == operand.sym_sizes()
             ? gradient
             : gradient.sum_to_size_symint(operand.sym_sizes());
}

struct Gemm : torch::autograd::Function<Gemm> {
  static at::Tensor forward(AutogradContext* context, c10::DispatchKeySet below,
                            const at::Tensor& a, const at::Tensor& b,
                            std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                            std::string_view scope, std::string_view label) {
    save(context, a, b, sim_device, scope);
    return gemm_op().redispatch(below, a, b, out_dtype, sim_device, scope, label);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &a = saved[0], &b = saved[1];
    const at::Tensor gradient = gradients[0].to(a.scalar_type());
    at::Tensor grad_a, grad_b;
    if (context->needs_input_grad(0)) {
      grad_a = reduced_to(product(gradient, b.mT(), *context, "gemm.grad_a"), a);
    }
    if (context->needs_input_grad(1)) {
      // Where B is one matrix, one tall product instead of a batch to sum.
      const bool fold = b.dim() == 2;
      const at::Tensor tall = fold ? rows_of(a) : a;
      const at::Tensor tall_gradient = fold ? rows_of(gradient) : gradient;
      grad_b = reduced_to(product(tall.mT(), tall_gradient, *context, "gemm.grad_b"), b);
    }
    return {at::Tensor(), grad_a, grad_b, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, c10::DispatchKeySet below,
                            const at::Tensor& input, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                            std::string_view scope, std::string_view label) {
    save(context, input, weight, sim_device, scope);
    context->saved_data["bias"] = bias && bias->defined();
    return linear_op().redispatch(below, input, weight, bias, sim_device, scope, label);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &gradient = gradients[0];
    const at::Tensor rows = gradient.dim() == 1 ? gradient.unsqueeze(0) : rows_of(gradient);
    at::Tensor grad_input, grad_weight, grad_bias;
    if (context->needs_input_grad(0)) {
      const bool vector = gradient.dim() == 1;
      grad_input = product(vector ? rows : gradient, weight, *context, "linear.grad_input");
      if (vector) grad_input = grad_input.squeeze(0);
    }
    if (context->needs_input_grad(1)) {
      const at::Tensor columns = input.dim() == 1 ? input.unsqueeze(0) : rows_of(input);
      grad_weight = product(rows.mT(), columns, *context, "linear.grad_weight");
    }
    if (context->saved_data.at("bias").toBool() && context->needs_input_grad(2)) {
      grad_bias = rows.sum(0);
    }
    return {at::Tensor(), grad_input,   grad_weight, grad_bias,
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// --- forward mode: a product's derivative in the direction of the tangents is products as well

bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(0).defined();
}

bool forward_mode() { return c10::AutogradState::get_tls_state().get_fw_grad_mode(); }

struct Dual {
  explicit Dual(const at::Tensor& tensor) : primal(tensor) {
    if (has_tangent(tensor)) std::tie(primal, tangent) = at::_unpack_dual(tensor, 0);
  }
  at::Tensor primal, tangent;
};

void add(at::Tensor& sum, const at::Tensor& tangent) {
  sum = sum.defined() ? sum + tangent : tangent;
}

at::Tensor gemm_forward_mode(const at::Tensor& a, const at::Tensor& b,
                             std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                             std::string_view scope, std::string_view label) {
  const Dual dual_a(a), dual_b(b);
  const auto call = [&](const at::Tensor& left, const at::Tensor& right, std::string_view name) {
    return gemm_op().call(left, right, out_dtype, sim_device, scope, name);
  };
  const at::Tensor result = call(dual_a.primal, dual_b.primal, label);
  at::Tensor tangent;
  if (dual_a.tangent.defined()) add(tangent, call(dual_a.tangent, dual_b.primal, "gemm.jvp_a"));
  if (dual_b.tangent.defined()) add(tangent, call(dual_a.primal, dual_b.tangent, "gemm.jvp_b"));
  return at::_make_dual(result, tangent, 0);
}

at::Tensor linear_forward_mode(const at::Tensor& input, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias, std::int64_t sim_device,
                               std::string_view scope, std::string_view label) {
  const Dual dual_input(input), dual_weight(weight), dual_bias(bias.value_or(at::Tensor()));
  const auto call = [&](const at::Tensor& x, const at::Tensor& w,
                        const std::optional<at::Tensor>& b, std::string_view name) {
    return linear_op().call(x, w, b, sim_device, scope, name);
  };
  std::optional<at::Tensor> primal_bias;
  if (dual_bias.primal.defined()) primal_bias = dual_bias.primal;
  const at::Tensor result = call(dual_input.primal, dual_weight.primal, primal_bias, label);
  at::Tensor tangent;
  if (dual_input.tangent.defined()) {
    add(tangent, call(dual_input.tangent, dual_weight.primal, std::nullopt, "linear.jvp_input"));
  }
  if (dual_weight.tangent.defined()) {
    add(tangent, call(dual_input.primal, dual_weight.tangent, std::nullopt, "linear.jvp_weight"));
  }
  if (dual_bias.tangent.defined()) add(tangent, dual_bias.tangent.expand_as(result));
  return at::_make_dual(result, tangent, 0);
}

bool at_functorch_level(c10::DispatchKeySet keys) {
  return keys.has(c10::DispatchKey::FuncTorchDynamicLayerBackMode);
}

}  // namespace

at::Tensor gemm_autograd(c10::DispatchKeySet keys, const at::Tensor& a, const at::Tensor& b,
                         std::optional<at::ScalarType> out_dtype, std::int64_t sim_device,
                         std::string_view scope, std::string_view label) {
  if (forward_mode() && (has_tangent(a) || has_tangent(b))) {
    return gemm_forward_mode(a, b, out_dtype, sim_device, scope, label);
  }
  const c10::DispatchKeySet below = keys & c10::after_autograd_keyset;
  if (at::GradMode::is_enabled() && (a.requires_grad() || b.requires_grad())) {
    if (at_functorch_level(keys)) {
      return python_gemm_autograd(keys, a, b, out_dtype, sim_device, scope, label);
    }
    return Gemm::apply(below, a, b, out_dtype, sim_device, scope, label);
  }
  return gemm_op().redispatch(below, a, b, out_dtype, sim_device, scope, label);
}

at::Tensor linear_autograd(c10::DispatchKeySet keys, const at::Tensor& input,
                           const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                           std::int64_t sim_device, std::string_view scope,
                           std::string_view label) {
  if (forward_mode() &&
      (has_tangent(input) || has_tangent(weight) || (bias && has_tangent(*bias)))) {
    return linear_forward_mode(input, weight, bias, sim_device, scope, label);
  }
  const c10::DispatchKeySet below = keys & c10::after_autograd_keyset;
  if (at::GradMode::is_enabled() && (input.requires_grad() || weight.requires_grad() ||
                                     (bias && bias->defined() && bias->requires_grad()))) {
    if (at_functorch_level(keys)) {
      return python_linear_autograd(keys, input, weight, bias, sim_device, scope, label);
    }
    return Linear::apply(below, input, weight, bias, sim_device, scope, label);
  }
  return linear_op().redispatch(below, input, weight, bias, sim_device, scope, label);
}

}  // namespace shmgemm::torch_op
