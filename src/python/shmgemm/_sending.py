"""torch products without waiting: straight to the device where they are plain, else as the ops do.

Plain are dense CPU tensors outside of torch's transforms. What autograd has to know of is sent like
any other product, and told to autograd when its value is there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)

from shmgemm import _core, _fallback, _gradients, _kernels
from shmgemm._checks import check_gemm, check_linear
from shmgemm._dtypes import check_sim_device
from shmgemm._library import gemm_op, linear_op
from shmgemm._plan import broadcast_batch
from shmgemm._tensors import CODES, DTYPES
from shmgemm.errors import ShmgemmError, Unsupported
from shmgemm.futures import Chained, Future, Sent, Together

_c: Any = torch._C


def _modes() -> list[TorchDispatchMode]:
    return _get_current_dispatch_mode_stack() if _c._len_torch_dispatch_stack() else []


def _only_counts(mode: TorchDispatchMode) -> bool:
    """A profile's counter, which takes the MACs of the device's products from their records."""
    return getattr(mode, "counts_device_products_by_records", False)


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether nobody but the device has to know of a product of these."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if not all(map(_only_counts, _modes())):
        return False
    if _c._functorch.peek_interpreter_stack() is not None or _gradients.has_tangent(*tensors):
        return False
    return all(
        t is None or (type(t) in (Tensor, nn.Parameter) and t.is_cpu and t.layout is torch.strided)
        for t in tensors
    )


def needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _rescue(
    label: str,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    error: ShmgemmError,
) -> Tensor:
    """The product by torch, counted and warned about, or the error; B is K x N."""
    m, k, n = a.shape[-2] if a.dim() > 1 else 1, a.shape[-1], b.shape[-1]
    _fallback.fall(error, label, m, n, k, math.prod(shape) // max(1, m * n))
    with _disable_current_modes():  # it is counted already
        return _kernels.on_cpu(shape, a, b, bias, CODES[dtype])


def gemm_async(
    extension: Any, a: Tensor, b: Tensor, out_dtype: torch.dtype | None, sim_device: int
) -> Future[Tensor]:
    check_sim_device(sim_device)
    if not is_plain(a, b):
        return Future(None, gemm_op(a, b, out_dtype=out_dtype, sim_device=sim_device))
    finish = None
    if needs_grad(a, b):
        finish = partial(_gradients.attach_gemm, a, b, out_dtype, sim_device)
    try:
        under_way, value = _send_gemm(extension, a, b, out_dtype, sim_device)
    except ShmgemmError as error:
        fallen = gemm_after_error(error, a, b, out_dtype)
        return Future(None, fallen if finish is None else finish(fallen))
    rescue = partial(_rescue, "gemm", a, b, None, value.shape, value.dtype)
    return Future(under_way, value, rescue, finish)


def _send_gemm(
    extension: Any, a: Tensor, b: Tensor, out_dtype: torch.dtype | None, sim_device: int
) -> tuple[Sent | None, Tensor]:
    session = _core.current_session()
    if extension is not None and out_dtype is None:
        sent: tuple[Sent, Tensor] | None = extension.send_gemm(a, b, sim_device)
        if sent is not None:
            return sent
    return _send(_kernels.gemm_calls(session, a, b, out_dtype, sim_device), session, (a, b))


def linear_async(
    extension: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sim_device: int,
    scope: str = "",
) -> Future[Tensor]:
    check_sim_device(sim_device)
    if not is_plain(input, weight, bias):
        return Future(None, linear_op(input, weight, bias, sim_device=sim_device, scope=scope))
    finish = None
    if needs_grad(input, weight, bias):
        finish = partial(_gradients.attach_linear, input, weight, bias, sim_device, scope)
    future = send_linear(extension, input, weight, bias, sim_device, scope, None, lambda: None)
    return future.then(finish) if finish else future


def send_linear(
    extension: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sim_device: int,
    scope: str,
    after: Sent | None,
    settle_input: Callable[[], object],
) -> Future[Tensor]:
    """A linear product of plain tensors, past autograd.

    `after` is what will write `input`, sent to the same session and waited for there; where the
    device fails, here or there, `settle_input` waits for it here.
    """

    def rescue(error: ShmgemmError) -> Tensor:
        if not isinstance(error, Unsupported):
            settle_input()
        return linear_after_error(error, input, weight, bias)

    outer_scope = _core.scope()
    try:
        if scope:
            _core.set_scope(scope)
        under_way, value = _send_linear(extension, input, weight, bias, sim_device, after)
        if after is not None and under_way is not None:
            under_way = Chained(under_way, after)
    except ShmgemmError as error:
        return Future(None, rescue(error))
    finally:
        if scope:
            _core.set_scope(outer_scope)
    return Future(under_way, value, rescue)


def _send_linear(
    extension: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sim_device: int,
    after: Sent | None,
) -> tuple[Sent | None, Tensor]:
    session = _core.current_session()
    own = after.own if isinstance(after, Chained) else after
    if after is not None and not (extension is not None and isinstance(own, extension.Sent)):
        after.result()
        own = None
    if extension is not None:
        sent: tuple[Sent, Tensor] | None = extension.send_linear(
            input, weight, bias, sim_device, own
        )
        if sent is not None:
            return sent
    if after is not None:
        after.result()
    calls = _kernels.linear_calls(session, input, weight, bias, sim_device)
    return _send(calls, session, (input, weight))


def _send(
    calls: _kernels.Calls, session: _core.Session, operands: tuple[Tensor, ...]
) -> tuple[Sent | None, Tensor]:
    if not calls.calls:
        return None, calls.result
    parts: list[Sent] = [session.gemm_async(call) for call in calls.calls]
    return Together(parts, (*operands, calls.held, calls.result)), calls.result


def gemm_after_error(
    error: ShmgemmError, a: Tensor, b: Tensor, out_dtype: torch.dtype | None
) -> Tensor:
    if isinstance(error, Unsupported):
        raise error
    dtype = DTYPES[check_gemm(a, b, out_dtype)]
    leading = broadcast_batch(a.shape[:-2], b.shape[:-2], "shmgemm.gemm")
    return _rescue("gemm", a, b, None, (*leading, a.shape[-2], b.shape[-1]), dtype, error)


def linear_after_error(
    error: ShmgemmError, input: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    if isinstance(error, Unsupported):
        raise error
    dtype = DTYPES[check_linear(input, weight, bias)]
    shape = (*input.shape[:-1], weight.shape[0])
    return _rescue("linear", input, weight.detach().mT, bias, shape, dtype, error)
