"""Layers whose products run on the simulated device, each a drop-in for the torch layer it extends.

A layer holds no copy of its weight: what the parameter is at the call is what the device reads, in
place where it lies in the region, staged otherwise.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shmgemm import _core, _fallback, _pending, _tensors
from shmgemm._dtypes import check_sim_device
from shmgemm._library import linear_op
from shmgemm.errors import ShmgemmError, Unsupported


def place(module: nn.Module) -> bool:
    """Move a layer's own parameters into the region, if a session is open and has room for them."""
    if _core.current_session_or_none() is None:
        return False
    try:
        return not _tensors.move(module.parameters(recurse=False))
    except ShmgemmError:
        return False


class DeviceLayer(nn.Module):
    """What device layers share: where they run, from which size on, and where their parameters lie.

    A call with fewer rows than `min_rows` or fewer multiply-accumulates than `min_macs` stays on
    the CPU and is counted in the profile's coverage. With `pipeline` a call outside of autograd
    returns at once, and whoever needs its values waits. `_shmgemm_fqn` is the path that the layer's
    records carry.
    """

    sim_device: int = 0
    min_rows: int = 0
    min_macs: int = 0
    pipeline: bool = False
    _shmgemm_fqn: str = ""

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.min_rows or self.min_macs:
            n, k = weight.shape
            rows = input.numel() // k if k else 0
            if rows < self.min_rows or rows * n * k < self.min_macs:
                if not torch.compiler.is_compiling():
                    _fallback.keep(rows * n * k)
                return F.linear(input, weight, bias)
        if self.pipeline and not torch.compiler.is_compiling():
            return _pending.linear(input, weight, bias, self.sim_device, self._shmgemm_fqn)
        return linear_op(  # type: ignore[no-any-return]
            input, weight, bias, sim_device=self.sim_device, scope=self._shmgemm_fqn
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        was_there = any(_tensors.in_region(p) for p in self.parameters(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if was_there:
            place(self)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        place(self)


class DeviceLinear(DeviceLayer, nn.Linear):
    """nn.Linear on the simulated device: same parameters, initialisation and state_dict.

    Input [..., in_features], output [..., out_features]. float32, float16 or bfloat16; `sim_device`
    says which of the session's devices computes it. The parameters go into the region where a
    session is open and has room; otherwise each call stages them.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        sim_device: int = 0,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        check_sim_device(sim_device)
        self.sim_device = sim_device
        place(self)

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, sim_device: int = 0) -> Self:
        """A device layer that shares the Parameters (the very objects) of an nn.Linear."""
        if not isinstance(linear, nn.Linear):
            raise Unsupported(
                f"DeviceLinear.from_linear: got {type(linear).__name__}; expected an nn.Linear"
            )
        has_bias = linear.bias is not None
        layer = cls(
            linear.in_features, linear.out_features, has_bias, "meta", sim_device=sim_device
        )
        layer.weight = linear.weight
        layer.bias = linear.bias
        layer.train(linear.training)
        place(layer)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        return self._linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, sim_device={self.sim_device}"


class DeviceMultiheadAttention(DeviceLayer, nn.MultiheadAttention):
    """nn.MultiheadAttention with its projections on the device; torch's own never calls a Linear.

    The products between queries, keys and values stay on the CPU. The result is that of torch's
    slow path; nested tensors, which only its fast path knows, go to torch.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if query.is_nested:
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask: pass the mask too")
        is_batched = query.dim() == 3
        _check_attention(query, key, value, key_padding_mask, attn_mask)
        q, k, v = self._project(query, key, value)
        if not is_batched:
            q, k, v = (x.unsqueeze(0) for x in (q, k, v))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        mask = self._mask(key_padding_mask, attn_mask, q)
        k, v, mask = self._extend(k, v, mask)
        heads, weights = self._attend(q, k, v, mask, need_weights)
        output = self._linear(heads, self.out_proj.weight, self.out_proj.bias)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not is_batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        e, bias = self.embed_dim, self.in_proj_bias
        if not self._qkv_same_embed_dim:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            biases = (None, None, None) if bias is None else bias.chunk(3)
            return [
                self._linear(x, w, b)
                for x, w, b in zip((query, key, value), weights, biases, strict=True)
            ]
        groups = [query, key, value]
        sizes = [1, 1, 1]
        if key is value:
            groups, sizes = ([query], [3]) if query is key else ([query, key], [1, 2])
        projected: list[Tensor] = []
        start = 0
        for x, size in zip(groups, sizes, strict=True):
            rows = slice(start, start + size * e)
            part = self._linear(x, self.in_proj_weight[rows], None if bias is None else bias[rows])
            projected += part.chunk(size, dim=-1)
            start += size * e
        return projected

    def _mask(
        self, key_padding_mask: Tensor | None, attn_mask: Tensor | None, q: Tensor
    ) -> Tensor | None:
        """One additive mask that broadcasts to [batch, heads, queries, keys], or None."""
        mask = None
        if attn_mask is not None:
            mask = _additive(attn_mask, q.dtype)
            if mask.dim() == 3:
                mask = mask.view(q.shape[0], self.num_heads, *mask.shape[1:])
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q.dtype)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        return mask

    def _extend(
        self, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The learned and the zero key and value that some models add to the sequence."""
        batch, _, e = k.shape
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(batch, 1, e)], dim=1)
            v = torch.cat([v, self.bias_v.expand(batch, 1, e)], dim=1)
            extra += 1
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            extra += 1
        return k, v, F.pad(mask, (0, extra)) if mask is not None and extra else mask

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        q, k, v = (
            x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for x in (q, k, v)
        )
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * math.sqrt(1.0 / q.shape[-1])) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = F.dropout(weights, dropout) if dropout else weights
            heads = weights @ v
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return heads.transpose(1, 2).flatten(-2), weights


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype is torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))
    if not mask.is_floating_point():
        raise Unsupported(f"attention: got a mask of {mask.dtype}; expected bool or floating point")
    return mask.to(dtype)


def _check_attention(
    query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, mask: Tensor | None
) -> None:
    dimensions = query.dim()
    if dimensions not in (2, 3) or key.dim() != dimensions or value.dim() != dimensions:
        raise Unsupported(
            f"attention: got query, key and value of {query.dim()}, {key.dim()} and {value.dim()}"
            " dimensions; expected 3 each (batched) or 2 each"
        )
    if padding is not None and padding.dim() != dimensions - 1:
        raise Unsupported(
            f"attention: got a key_padding_mask of {padding.dim()} dimensions; expected"
            f" {dimensions - 1}"
        )
    if mask is not None and mask.dim() not in (2, 3):
        raise Unsupported(
            f"attention: got an attn_mask of {mask.dim()} dimensions; expected 2 or 3"
        )


def conv1d_class() -> type[nn.Module] | None:
    """transformers' Conv1D (a linear layer whose weight lies as K x N), where it was imported."""
    module = sys.modules.get("transformers.pytorch_utils")
    return getattr(module, "Conv1D", None)


def _make_device_conv1d() -> type[nn.Module]:
    from transformers.pytorch_utils import Conv1D  # type: ignore[import-untyped, unused-ignore]

    class DeviceConv1D(DeviceLayer, Conv1D):
        """transformers' Conv1D, as GPT-2 has it, on the simulated device."""

        def forward(self, x: Tensor) -> Tensor:
            return self._linear(x, self.weight.t(), self.bias)

        def __repr__(self) -> str:
            return f"DeviceConv1D(nf={self.nf}, nx={self.nx}, sim_device={self.sim_device})"

    DeviceConv1D.__module__ = __name__
    DeviceConv1D.__qualname__ = "DeviceConv1D"
    return DeviceConv1D


def __getattr__(name: str) -> Any:
    if name == "DeviceConv1D":  # exists only where transformers does; pickle finds it here
        globals()[name] = _make_device_conv1d()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
