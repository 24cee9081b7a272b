"""The CPU kernels: addresses and strides to the session, a product by torch where it fails.

Operands in the region are used in place and the client stages others. What no command can say is
copied here, straight into the region.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from shmgemm import _core, _dtypes, _fallback, errors
from shmgemm._checks import check_gemm, check_linear
from shmgemm._dtypes import check_sim_device
from shmgemm._plan import Plan, plan, plan_linear
from shmgemm._tensors import CODES, DTYPES, new
from shmgemm.errors import ShmgemmError, Unsupported

_INPUT_CODES = {dtype: code for dtype, code in CODES.items() if code in _dtypes.INPUTS}


def gemm_cpu(
    a: Tensor,
    b: Tensor,
    *,
    out_dtype: torch.dtype | None = None,
    sim_device: int = 0,
    scope: str = "",
    label: str = "gemm",
) -> Tensor:
    check_sim_device(sim_device)
    a_shape, b_shape = a.shape, b.shape
    code = _INPUT_CODES.get(a.dtype)
    if (
        len(a_shape) == len(b_shape) == 2
        and code is not None
        and out_dtype is None
        and a.dtype is b.dtype
    ):
        m, k = a_shape
        n = b_shape[1]
        if k == b_shape[0] and m and n and k:
            strides = a.stride()
            return _run_one(
                a, b, None, False, (m, n), (m, n, k), code, strides, sim_device, scope, label
            )
    out_code = check_gemm(a, b, out_dtype)
    steps = plan(a_shape, a.stride(), b_shape, b.stride())
    return _run(steps, a, b, False, None, out_code, sim_device, scope, label)


def _run_one(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    b_is_weight: bool,
    shape: tuple[int, ...],
    mnk: tuple[int, int, int],
    code: int,
    a_strides: Any,
    sim_device: int,
    scope: str,
    label: str,
) -> Tensor:
    """One command, without a plan: what most calls are. A weight lies as N x K."""
    m, n, k = mnk
    out_code = _dtypes.INT32 if code == _dtypes.INT8 else code
    b_row, b_column = b.stride()
    if b_is_weight:
        b_row, b_column = b_column, b_row
    outer_scope = None
    try:
        if scope:
            outer_scope = _core.scope()
            _core.set_scope(scope)
        session = _core.current_session()
        result = new(shape, out_code, session)
        bias_address = 0
        if bias is not None:
            bias = device_bias(bias)
            bias_address = bias.data_ptr()
        session.gemm(
            label,
            m,
            n,
            k,
            1,
            code,
            out_code,
            (a.data_ptr(), 0, *a_strides),
            (b.data_ptr(), 0, b_row, b_column),
            (result.data_ptr(), 0, n, 1),
            bias_address,
            False,
            sim_device,
        )
        return result
    except ShmgemmError as error:
        _fallback.fall(error, label, m, n, k, 1)
        return on_cpu(shape, a, b.mT if b_is_weight else b, bias, out_code)
    finally:
        if outer_scope is not None:
            _core.set_scope(outer_scope)


def linear_cpu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    sim_device: int = 0,
    scope: str = "",
    label: str = "linear",
) -> Tensor:
    check_sim_device(sim_device)
    out_code = check_linear(input, weight, bias)
    n, k = weight.shape
    *leading, _ = input.shape
    if n and k and input.is_contiguous() and (m := input.numel() // k):
        shape, code = (*leading, n), CODES[input.dtype]
        return _run_one(
            input, weight, bias, True, shape, (m, n, k), code, (k, 1), sim_device, scope, label
        )
    product = _linear_plan(input, weight)
    return _run(*product, bias, out_code, sim_device, scope, label)


def _linear_plan(input: Tensor, weight: Tensor) -> tuple[Plan, Tensor, Tensor, bool]:
    """The plan, the input, the weight as K x N, and whether the input is to be copied densely."""
    rows, matrix = input.detach(), weight.detach().mT
    if rows.dim() == 1:
        rows = rows.unsqueeze(0)
    steps, dense = plan_linear(rows.shape, rows.stride(), matrix.shape, matrix.stride())
    return steps._replace(shape=(*input.shape[:-1], steps.n)), rows, matrix, dense


class Calls(NamedTuple):
    """What a product is to the device: where its result will lie, and what to send for it."""

    result: Tensor
    calls: list[_core.GemmCall]
    held: tuple[Tensor | None, ...]  # copies that the calls read


def gemm_calls(
    session: _core.Session, a: Tensor, b: Tensor, out_dtype: torch.dtype | None, sim_device: int
) -> Calls:
    """Of a[..., M, K] @ b[..., K, N], as the op checks and cuts it."""
    out_code = check_gemm(a, b, out_dtype)
    steps = plan(a.shape, a.stride(), b.shape, b.stride())
    return _calls(session, steps, a, b, False, None, out_code, sim_device, "gemm")


def linear_calls(
    session: _core.Session, input: Tensor, weight: Tensor, bias: Tensor | None, sim_device: int
) -> Calls:
    out_code = check_linear(input, weight, bias)
    product = _linear_plan(input, weight)
    return _calls(session, *product, bias, out_code, sim_device, "linear")


def _run(
    steps: Plan,
    a: Tensor,
    b: Tensor,
    dense_a: bool,
    bias: Tensor | None,
    out_code: int,
    sim_device: int,
    scope: str,
    label: str,
) -> Tensor:
    """Run a plan's commands; an ordinary product on the CPU where the device cannot."""
    outer_scope = _core.scope() if scope else ""
    try:
        if scope:
            _core.set_scope(scope)
        session = _core.current_session()
        result, calls, _held = _calls(
            session, steps, a, b, dense_a, bias, out_code, sim_device, label
        )
        if calls:
            session.gemm_batch(calls)
        return result
    except ShmgemmError as error:
        commands = len(steps.starts)
        _fallback.fall(error, label, steps.m, steps.n, steps.k, steps.batch * commands)
        return on_cpu(steps.shape, a, b, bias, out_code)
    finally:
        if scope:
            _core.set_scope(outer_scope)


def _calls(
    session: _core.Session,
    steps: Plan,
    a: Tensor,
    b: Tensor,
    dense_a: bool,
    bias: Tensor | None,
    out_code: int,
    sim_device: int,
    label: str,
) -> Calls:
    result = new(steps.shape, out_code, session)
    if not steps.starts:
        with torch.no_grad():
            return Calls(result.zero_() if bias is None else result.copy_(bias), [], ())
    code = CODES[a.dtype]
    if dense_a:
        a = new(tuple(a.shape), code, session).copy_(a)
    if bias is not None:
        bias = device_bias(bias)
    bias_address = 0 if bias is None else bias.data_ptr()
    item, out_item = _dtypes.ITEM_BYTES[code], _dtypes.ITEM_BYTES[out_code]
    a_address, b_address, c_address = a.data_ptr(), b.data_ptr(), result.data_ptr()
    calls = [
        _core.GemmCall(
            label,
            steps.m,
            steps.n,
            steps.k,
            steps.batch,
            code,
            out_code,
            (a_address + a_start * item, *steps.a),
            (b_address + b_start * item, *steps.b),
            (c_address + c_start * out_item, *steps.c, 1),
            bias_address,
            False,
            sim_device,
        )
        for a_start, b_start, c_start in steps.starts
    ]
    if dense_a:
        calls[0].bytes_copied = a.nbytes
    return Calls(result, calls, (a, b, bias))


def device_bias(bias: Tensor) -> Tensor:
    """The bias as devices read it: dense, float32 for every float type."""
    if bias.dtype is torch.int32 or bias.dtype is torch.float32:
        return bias if bias.is_contiguous() else bias.detach().contiguous()
    return bias.detach().to(torch.float32).contiguous()


def on_cpu(
    shape: tuple[int, ...], a: Tensor, b: Tensor, bias: Tensor | None, out_code: int
) -> Tensor:
    """The same product by torch; through float32 (int8: float64), as its low precision is slow."""
    wide = torch.float64 if a.dtype is torch.int8 else torch.float32
    with torch.no_grad():
        product = torch.matmul(a.to(wide), b.to(wide))
        if bias is not None:
            product += bias.to(wide)
        if a.dtype is torch.int8:
            product = product.to(torch.int64)  # int32 wraps, a float beyond it does not
        return product.to(DTYPES[out_code]).reshape(shape)


def after_error(
    class_name: str,
    message: str,
    m_n_k_batch: tuple[int, int, int, int],
    shape: tuple[int, ...],
    out_dtype: torch.dtype,
    label: str,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """What the C++ kernel does about an error of the device; `class_name` is one of errors.py."""
    error: ShmgemmError = getattr(errors, class_name)(message)
    m, n, k, batch = m_n_k_batch
    _fallback.fall(error, label, m, n, k, batch)
    return on_cpu(shape, a, b, bias, CODES[out_dtype])


def not_here(*operands: Any, **_: Any) -> Tensor:
    """The kernel of every other backend: says where the operands should be."""
    for tensor in operands:
        if isinstance(tensor, Tensor) and (
            tensor.device.type != "cpu" or tensor.layout is not torch.strided
        ):
            raise Unsupported(
                f"shmgemm: got a {tensor.layout} tensor on {tensor.device}; expected a dense CPU"
                " tensor (the device reads host memory): call .cpu() or .to_dense() on it"
            )
    raise Unsupported("shmgemm: expected dense CPU tensors")
