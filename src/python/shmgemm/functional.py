"""torch's own product functions on the simulated device, for as long as a `with` block lasts.

What a call asks for is read by a function with the signature of torch's; whatever does not fit the
device is torch's to do, or to refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from shmgemm._dtypes import FLOATS, check_sim_device
from shmgemm._library import gemm_op, linear_op
from shmgemm._tensors import CODES


class offload_functional(TorchFunctionMode):
    """`with offload_functional():` runs F.linear and torch's plain products on the device.

    Those are torch.matmul, mm, bmm, addmm and baddbmm, the methods of these names, and `@`. Of
    other types, of vectors and of tensors elsewhere they stay with torch, as do calls with `out=`,
    einsum, and what torch's own composite functions do inside (F.multi_head_attention_forward, for
    one).
    """

    def __init__(self, *, sim_device: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        check_sim_device(sim_device)
        self.sim_device = sim_device

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        product = _product(func, args, kwargs)
        if product is not None and product.fits():
            return product.run(self.sim_device)
        return func(*args, **kwargs)


class _Product(NamedTuple):
    """alpha * (a @ b) + beta * added, where something is added."""

    a: Any
    b: Any
    dimensions: int = 0  # of a and b; 0: two or more each, batches broadcast
    added: Any = None
    beta: Any = 1
    alpha: Any = 1

    def fits(self) -> bool:
        a, b, added = self.a, self.b, self.added
        if not (_is_operand(a) and _is_operand(b) and a.dtype is b.dtype):
            return False
        if min(a.dim(), b.dim()) < 2 or a.shape[-1] != b.shape[-2]:
            return False
        if self.dimensions and not a.dim() == b.dim() == self.dimensions:
            return False
        if self.dimensions == 3 and a.shape[0] != b.shape[0]:
            return False
        if added is None:
            return True
        shape = (*a.shape[:-1], b.shape[-1])
        return (
            _is_operand(added)
            and added.dtype is a.dtype
            and added.dim() <= len(shape)
            and all(n in (1, size) for n, size in zip(added.shape[::-1], shape[::-1], strict=False))
        )

    def run(self, sim_device: int) -> Any:
        a, b, added = self.a, self.b, self.added
        if added is None:
            return gemm_op(a, b, sim_device=sim_device)
        if self.alpha == self.beta == 1 and b.dim() == 2 and added.shape == b.shape[1:]:
            return linear_op(a, b.mT, added, sim_device=sim_device)
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else a.dtype
        wide = None if dtype is torch.float32 else torch.float32  # rounded once, after the sum
        result = gemm_op(a, b, out_dtype=wide, sim_device=sim_device)
        result = result if self.alpha == 1 else self.alpha * result
        if self.beta != 0:
            result = torch.add(result, added.to(dtype), alpha=self.beta)
        return result.to(dtype)


def _is_operand(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and CODES.get(value.dtype) in FLOATS
    )


def _matmul(input: Any, other: Any) -> _Product:
    return _Product(input, other)


def _mm(input: Any, mat2: Any) -> _Product:
    return _Product(input, mat2, 2)


def _bmm(input: Any, mat2: Any) -> _Product:
    return _Product(input, mat2, 3)


def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> _Product:
    return _Product(mat1, mat2, 2, input, beta, alpha)


def _baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> _Product:
    return _Product(batch1, batch2, 3, input, beta, alpha)


class _Linear(NamedTuple):
    """F.linear(input, weight, bias), whose shapes the op checks itself."""

    input: Any
    weight: Any
    bias: Any = None

    def fits(self) -> bool:
        input, weight = self.input, self.weight
        return (
            _is_operand(input)
            and _is_operand(weight)
            and input.dtype is weight.dtype
            and min(input.dim(), weight.dim()) >= 2
        )

    def run(self, sim_device: int) -> Any:
        return linear_op(self.input, self.weight, self.bias, sim_device=sim_device)


_READERS: dict[Any, Callable[..., _Product | _Linear]] = {
    F.linear: _Linear,
    torch.matmul: _matmul,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    torch.mm: _mm,
    Tensor.mm: _mm,
    torch.bmm: _bmm,
    Tensor.bmm: _bmm,
    torch.addmm: _addmm,
    Tensor.addmm: _addmm,
    torch.baddbmm: _baddbmm,
    Tensor.baddbmm: _baddbmm,
}


def _product(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Product | _Linear | None:
    """What the call asks for; None for another function, or arguments such as `out`."""
    reader = _READERS.get(func)
    try:
        return None if reader is None else reader(*args, **kwargs)
    except TypeError:
        return None
