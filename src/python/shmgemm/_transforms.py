"""What the ops are under torch's transforms: fake tensors (compile, export), vmap and autocast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from shmgemm._checks import check_gemm, check_linear
from shmgemm._library import gemm_op, linear_op
from shmgemm._tensors import DTYPES
from shmgemm.errors import Unsupported

_c: Any = torch._C
_autocast_key = _c.DispatchKeySet(_c.DispatchKey.AutocastCPU)


def gemm_fake(
    a: Tensor,
    b: Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    sim_device: int = 0,
    scope: str = "",
    label: str = "gemm",
) -> Tensor:
    out_code = check_gemm(a, b, out_dtype)
    if a.shape[-1] != b.shape[-2]:
        raise Unsupported(
            f"shmgemm.gemm: a and b cannot be multiplied: {tuple(a.shape)} and {tuple(b.shape)}"
        )
    batch = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        a.shape[:-2], b.shape[:-2]
    )
    return a.new_empty((*batch, a.shape[-2], b.shape[-1]), dtype=DTYPES[out_code])


def linear_fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    sim_device: int = 0,
    scope: str = "",
    label: str = "linear",
) -> Tensor:
    out_code = check_linear(input, weight, bias)
    return input.new_empty((*input.shape[:-1], weight.shape[0]), dtype=DTYPES[out_code])


def _batch_first(tensor: Tensor, dimension: int | None, logical_dims: int) -> Tensor:
    """The mapped dimension in front, padded so that the operands' own dimensions line up."""
    if dimension is None:
        return tensor
    tensor = tensor.movedim(dimension, 0)
    padding = logical_dims - (tensor.dim() - 1)
    return tensor.reshape(tensor.shape[0], *([1] * padding), *tensor.shape[1:])


def gemm_vmap(
    info: Any, in_dims: tuple[int | None, ...], a: Tensor, b: Tensor, **options: Any
) -> tuple[Tensor, int]:
    a_dim, b_dim = in_dims[:2]
    logical = max(a.dim() - (a_dim is not None), b.dim() - (b_dim is not None))
    return gemm_op(_batch_first(a, a_dim, logical), _batch_first(b, b_dim, logical), **options), 0


def linear_vmap(
    info: Any,
    in_dims: tuple[int | None, ...],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, int]:
    input_dim, weight_dim = in_dims[:2]
    bias_dim = in_dims[2] if len(in_dims) > 2 else None
    if weight_dim is None and bias_dim is None:
        assert input_dim is not None
        return linear_op(input.movedim(input_dim, 0), weight, bias, **options), 0
    if input_dim is not None:
        input, input_dim = input.movedim(input_dim, 0), 0
    is_vector = input.dim() - (input_dim is not None) == 1
    if is_vector:
        input = input.unsqueeze(-2)
    logical = input.dim() - (input_dim is not None)
    a = _batch_first(input, input_dim, logical)
    b = _batch_first(weight, weight_dim, logical).mT
    product = gemm_op(a, b, **{"label": "linear", **options})
    if is_vector:
        product = product.squeeze(-2)
    if bias is not None:
        if bias_dim is not None:
            bias = bias.movedim(bias_dim, 0)
            bias = bias.reshape(bias.shape[0], *([1] * (logical - 1 - is_vector)), bias.shape[1])
        product = product + bias
    return product, 0


def cast(tensor: Tensor) -> Tensor:
    """As autocast has it."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.get_autocast_dtype("cpu"))


def gemm_autocast(a: Tensor, b: Tensor, **options: Any) -> Tensor:
    with _c._ExcludeDispatchKeyGuard(_autocast_key):
        return gemm_op(cast(a), cast(b), **options)  # type: ignore[no-any-return]


def linear_autocast(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any
) -> Tensor:
    with _c._ExcludeDispatchKeyGuard(_autocast_key):
        added = None if bias is None else cast(bias)
        return linear_op(cast(input), cast(weight), added, **options)  # type: ignore[no-any-return]
