"""Autograd of the ops: each gradient of a product is a product by the same ops on the same device.

So they differentiate again, and their records carry the path of the layer that asked for the
forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from shmgemm._kernels import gemm_cpu, linear_cpu
from shmgemm._library import gemm_op, linear_op

_c: Any = torch._C
_plain = _c.DispatchKeySet(_c.DispatchKey.AutogradCPU) | _c.DispatchKeySet(_c.DispatchKey.CPU)
_functorch = _c.DispatchKey.FuncTorchDynamicLayerBackMode


def _like(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    return gradient if gradient.dtype is dtype else gradient.to(dtype)


@contextmanager
def _outer_levels_record(keyset: Any) -> Iterator[None]:
    """An autograd function's forward turns recording off; functorch's outer levels need it on."""
    if not keyset.has(_functorch):
        yield
        return
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
        yield


class _Gemm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keyset: Any,
        a: Tensor,
        b: Tensor,
        out_dtype: Any,
        device: int,
        scope: str,
        label: str,
    ) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.options = (device, scope)
        with _outer_levels_record(keyset):
            return _gemm_below(keyset, a, b, out_dtype, device, scope, label)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        a, b = ctx.saved_tensors
        device, scope = ctx.options
        gradient = _like(gradient, a.dtype)
        grad_a = grad_b = None
        if ctx.needs_input_grad[1]:
            grad_a = gemm_op(gradient, b.mT, sim_device=device, scope=scope, label="gemm.grad_a")
            grad_a = grad_a.sum_to_size(a.shape)
        if ctx.needs_input_grad[2]:
            if b.dim() == 2 and a.dim() > 2:  # one tall product instead of a batch to sum
                a = a.reshape(-1, a.shape[-1])
                gradient = gradient.reshape(-1, gradient.shape[-1])
            grad_b = gemm_op(a.mT, gradient, sim_device=device, scope=scope, label="gemm.grad_b")
            grad_b = grad_b.sum_to_size(b.shape)
        return None, grad_a, grad_b, None, None, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keyset: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        device: int,
        scope: str,
        label: str,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.options = (device, scope)
        with _outer_levels_record(keyset):
            return _linear_below(keyset, input, weight, bias, device, scope, label)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        device, scope = ctx.options
        grad_input = grad_weight = grad_bias = None
        rows = gradient.reshape(-1, weight.shape[0])
        if ctx.needs_input_grad[1]:
            grad_input = gemm_op(
                rows if input.dim() == 1 else gradient,
                weight,
                sim_device=device,
                scope=scope,
                label="linear.grad_input",
            ).reshape(input.shape)
        if ctx.needs_input_grad[2]:
            columns = input.reshape(-1, weight.shape[1])
            grad_weight = gemm_op(
                rows.mT, columns, sim_device=device, scope=scope, label="linear.grad_weight"
            )
        if ctx.needs_input_grad[3]:
            grad_bias = rows.sum(0)
        return None, grad_input, grad_weight, grad_bias, None, None, None


class _SentGemm(torch.autograd.Function):
    """A product whose value is there: what is left is to tell autograd where it comes from."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, a: Tensor, b: Tensor, out_dtype: Any, device: int
    ) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.options = (device, "")
        return value.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Gemm.backward(ctx, gradient)[:5]


class _SentLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        device: int,
        scope: str,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.options = (device, scope)
        return value.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Linear.backward(ctx, gradient)[:6]


def attach_gemm(a: Tensor, b: Tensor, out_dtype: Any, device: int, value: Tensor) -> Tensor:
    """The value of a @ b as autograd knows it."""
    with torch.enable_grad():  # whatever holds where the result is asked for
        result: Tensor = _SentGemm.apply(  # type: ignore[no-untyped-call]
            value, a, b, out_dtype, device
        )
    return result


def attach_linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    device: int,
    scope: str,
    value: Tensor,
) -> Tensor:
    """The value of linear(input, weight, bias) as autograd knows it."""
    with torch.enable_grad():
        result: Tensor = _SentLinear.apply(  # type: ignore[no-untyped-call]
            value, input, weight, bias, device, scope
        )
    return result


# Past Function.apply, which refuses functorch's levels without a setup_context (slow to bind): they
# are the dispatcher's business here, as for an autograd kernel in C++.
_apply_gemm: Callable[..., Tensor] = super(torch.autograd.Function, _Gemm).apply
_apply_linear: Callable[..., Tensor] = super(torch.autograd.Function, _Linear).apply


def _gemm_below(
    keyset: Any,
    a: Tensor,
    b: Tensor,
    out_dtype: torch.dtype | None,
    device: int,
    scope: str,
    label: str,
) -> Tensor:
    """The kernel below autograd: straight, where no fake tensor or functorch is in between."""
    if keyset == _plain:
        return gemm_cpu(a, b, out_dtype=out_dtype, sim_device=device, scope=scope, label=label)
    with _c._AutoDispatchBelowAutograd():
        result: Tensor = gemm_op.redispatch(
            keyset & _c._after_autograd_keyset,
            a,
            b,
            out_dtype=out_dtype,
            sim_device=device,
            scope=scope,
            label=label,
        )
    return result


def _linear_below(
    keyset: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    device: int,
    scope: str,
    label: str,
) -> Tensor:
    if keyset == _plain:
        return linear_cpu(input, weight, bias, sim_device=device, scope=scope, label=label)
    with _c._AutoDispatchBelowAutograd():
        result: Tensor = linear_op.redispatch(
            keyset & _c._after_autograd_keyset,
            input,
            weight,
            bias,
            sim_device=device,
            scope=scope,
            label=label,
        )
    return result


def _unpack_dual(tensor: Tensor | None) -> tuple[Any, Tensor | None]:
    if tensor is None:
        return None, None
    primal, tangent = torch._VF._unpack_dual(tensor, level=0)
    return primal, tangent


def _make_dual(result: Tensor, tangents: list[Tensor]) -> Tensor:
    tangent = sum(tangents[1:], tangents[0])
    dual: Tensor = torch._VF._make_dual(result, tangent, level=0)
    return dual


def has_tangent(*tensors: Tensor | None) -> bool:
    """Forward-mode differentiation is going on, and one of these is a dual tensor."""
    return (
        forward_ad._current_level >= 0
        and _c._is_fwd_grad_enabled()
        and any(_unpack_dual(tensor)[1] is not None for tensor in tensors)
    )


def _gemm_forward_mode(a: Tensor, b: Tensor, **options: Any) -> Tensor:
    """The product, and its derivative in the direction of the tangents: products as well."""
    (a, tangent_a), (b, tangent_b) = _unpack_dual(a), _unpack_dual(b)
    result = gemm_op(a, b, **options)
    tangents = []
    if tangent_a is not None:
        tangents.append(gemm_op(tangent_a, b, **options | {"label": "gemm.jvp_a"}))
    if tangent_b is not None:
        tangents.append(gemm_op(a, tangent_b, **options | {"label": "gemm.jvp_b"}))
    return _make_dual(result, tangents)


def _linear_forward_mode(
    input: Tensor, weight: Tensor, bias: Tensor | None, **options: Any
) -> Tensor:
    (input, tangent_input), (weight, tangent_weight) = _unpack_dual(input), _unpack_dual(weight)
    bias, tangent_bias = _unpack_dual(bias)
    result = linear_op(input, weight, bias, **options)
    tangents = []
    if tangent_input is not None:
        tangents.append(linear_op(tangent_input, weight, **options | {"label": "linear.jvp_input"}))
    if tangent_weight is not None:
        tangents.append(
            linear_op(input, tangent_weight, **options | {"label": "linear.jvp_weight"})
        )
    if tangent_bias is not None:
        tangents.append(tangent_bias.expand_as(result))
    return _make_dual(result, tangents)


def gemm_autograd(
    keyset: Any,
    a: Tensor,
    b: Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    sim_device: int = 0,
    scope: str = "",
    label: str = "gemm",
) -> Tensor:
    if has_tangent(a, b):
        options = {"sim_device": sim_device, "scope": scope, "label": label}
        return _gemm_forward_mode(a, b, out_dtype=out_dtype, **options)
    if (a.requires_grad or b.requires_grad) and torch.is_grad_enabled():
        if keyset == _plain:
            return _apply_gemm(keyset, a, b, out_dtype, sim_device, scope, label)
        with enable_single_level_autograd_function():
            return _apply_gemm(keyset, a, b, out_dtype, sim_device, scope, label)
    return _gemm_below(keyset, a, b, out_dtype, sim_device, scope, label)


def linear_autograd(
    keyset: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    sim_device: int = 0,
    scope: str = "",
    label: str = "linear",
) -> Tensor:
    if has_tangent(input, weight, bias):
        options = {"sim_device": sim_device, "scope": scope, "label": label}
        return _linear_forward_mode(input, weight, bias, **options)
    needs_grad = (
        weight.requires_grad or input.requires_grad or (bias is not None and bias.requires_grad)
    )
    if needs_grad and torch.is_grad_enabled():
        if keyset == _plain:
            return _apply_linear(keyset, input, weight, bias, sim_device, scope, label)
        with enable_single_level_autograd_function():
            return _apply_linear(keyset, input, weight, bias, sim_device, scope, label)
    return _linear_below(keyset, input, weight, bias, sim_device, scope, label)
