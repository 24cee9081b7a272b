"""Counts the matrix MACs torch computes on the CPU while a profile is open.

A dispatch mode sees what runs below autograd, so backward products and products inside torch's own
modules are seen too; an op that is only a composition of others is taken apart first (which is what
torch itself would do next). Only module calls say what a linear layer is, hence the hooks.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

aten = torch.ops.aten
Macs = tuple[int, int]  # all, and of those: certainly a linear layer's


def _mm(a: torch.Tensor, b: torch.Tensor, *_: Any) -> Macs:
    return a.numel() * b.shape[-1], 0


def _addmm(_bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *_: Any) -> Macs:
    return a.numel() * b.shape[-1], 0


def _mv(a: torch.Tensor, _x: torch.Tensor, *_: Any) -> Macs:
    return a.numel(), 0


def _addmv(_bias: torch.Tensor, a: torch.Tensor, *_: Any) -> Macs:
    return a.numel(), 0


def _linear(x: torch.Tensor, weight: torch.Tensor, *_: Any) -> Macs:
    return x.numel() * (weight.shape[0] if weight.dim() == 2 else 1), 0


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> Macs:
    scores = prod(query.shape[:-1]) * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1]), 0


def _attention_backward(
    _grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any
) -> Macs:
    # The scores again, dQ and dK with the head's width; dP and dV with the value's.
    scores = prod(query.shape[:-1]) * key.shape[-2]
    return scores * (3 * query.shape[-1] + 2 * value.shape[-1]), 0


def _convolution_macs(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Size, transposed: bool
) -> int:
    places = x.numel() if transposed else prod(out)
    return places * prod(weight.shape[1:])


def _convolution_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rest: Any
) -> Macs:
    transposed, mask = rest[4], rest[7]
    wanted = int(mask[0]) + int(mask[1])  # with respect to the input, to the weight
    return wanted * _convolution_macs(x, weight, grad.shape, transposed), 0


def _self_attention(x: torch.Tensor, width: int) -> int:
    if x.is_nested:
        return 2 * width * sum(int(rows) ** 2 for rows in x._nested_tensor_size()[:, 0])
    return 2 * x.numel() * x.shape[-2]


def _encoder_layer(x: torch.Tensor, width: int, *rest: Any) -> Macs:
    # rest: heads, qkv weight and bias, projection weight and bias, ..., ffn weights at 12 and 14
    rows = x.numel() // width
    linear = rows * sum(rest[i].numel() for i in (1, 3, 12, 14))
    return linear + _self_attention(x, width), linear


def _native_attention(x: torch.Tensor, _k: Any, _v: Any, width: int, *rest: Any) -> Macs:
    # torch takes this path for self-attention only. rest: heads, qkv weight and bias, projection
    linear = x.numel() // width * (rest[1].numel() + rest[3].numel())
    return linear + _self_attention(x, width), linear


def _rnn_layer(x: torch.Tensor, weight: torch.Tensor, recurrent: torch.Tensor, *_: Any) -> Macs:
    return x.numel() // x.shape[-1] * (weight.numel() + recurrent.numel()), 0


_COUNT: dict[Any, Callable[..., Macs]] = {
    aten.mm.default: _mm,
    aten.bmm.default: _mm,
    aten._int_mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.addbmm.default: _addmm,
    aten._addmm_activation.default: _addmm,
    aten.mv.default: _mv,
    aten.addmv.default: _addmv,
    aten.linear.default: _linear,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _attention_backward,
    aten._scaled_dot_product_fused_attention_overrideable.default: _attention,
    aten.convolution_backward.default: _convolution_backward,
    aten._transformer_encoder_layer_fwd.default: _encoder_layer,
    aten._native_multi_head_attention.default: _native_attention,
    aten.mkldnn_rnn_layer.default: _rnn_layer,
}
# In place of an output: the same arguments.
for _name in ("addmm_", "baddbmm_", "addbmm_", "addmv_"):
    _COUNT[getattr(aten, _name).default] = _COUNT[getattr(aten, _name[:-1]).default]
for _name in ("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv"):
    _COUNT[getattr(aten, _name).out] = _COUNT[getattr(aten, _name).default]

# What a linear layer's own product becomes; any other product within one is attention.
_LINEAR = {aten.mm.default, aten.addmm.default, aten._addmm_activation.default, aten.linear.default}
_LINEAR |= {aten.mv.default, aten.addmv.default}
_CONVOLUTION = aten.convolution.default


def _has_nested(args: Any) -> bool:
    """Nested tensors have kernels of their own for ops that are composite for all others."""
    return any(isinstance(arg, torch.Tensor) and arg.is_nested for arg in args)


def _is_linear(module: torch.nn.Module) -> bool:
    if isinstance(module, torch.nn.Linear | torch.nn.MultiheadAttention):
        return True
    conv1d = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    return conv1d is not None and isinstance(module, conv1d)


class MacCounter(TorchDispatchMode):
    """Counts between start() and stop(), in the thread that called start()."""

    counts_device_products_by_records = True  # so those may go past it

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0
        self.linear_macs = 0
        self.uncounted: set[str] = set()
        self._depth = 0  # linear modules that are running
        self._thread = 0
        self._hooks: list[RemovableHandle] = []
        self._composite: dict[Any, bool] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True costs an import of torch._dynamo (a second) at the first op

    def start(self) -> None:
        self._thread = threading.get_ident()
        self._depth = 0
        self._hooks = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        self.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _enter_module(self, module: torch.nn.Module, _inputs: Any) -> None:
        if _is_linear(module) and threading.get_ident() == self._thread:
            self._depth += 1

    def _leave_module(self, module: torch.nn.Module, _inputs: Any, _output: Any) -> None:
        if _is_linear(module) and threading.get_ident() == self._thread:
            self._depth = max(0, self._depth - 1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = _COUNT.get(func)
        if count is not None:
            result = func(*args, **kwargs)
            self._add(func, count, args)
            return result
        if self._is_composite(func) and not _has_nested(args):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if func is _CONVOLUTION:
            self.macs += _convolution_macs(args[0], args[1], result.shape, args[6])
        return result

    def _add(self, func: Any, count: Callable[..., Macs], args: Any) -> None:
        try:
            macs, linear = count(*args)
        except (RuntimeError, IndexError, TypeError, AttributeError):  # nested tensors, odd calls
            self.uncounted.add(str(func))
            return
        self.macs += macs
        self.linear_macs += macs if self._depth and func in _LINEAR else linear

    def _is_composite(self, func: Any) -> bool:
        known = self._composite.get(func)
        if known is None:
            known = func.namespace == "aten" and torch._C._dispatch_has_kernel_for_dispatch_key(
                func.name(), "CompositeImplicitAutograd"
            )
            self._composite[func] = known
        return known
