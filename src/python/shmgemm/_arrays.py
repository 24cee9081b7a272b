"""The same calls for NumPy arrays, torch or not: arrays in the region, products without a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shmgemm import _core, _dtypes, _fallback
from shmgemm import opening as _opening  # noqa: F401 - opens the default session
from shmgemm._plan import Plan, plan, plan_linear
from shmgemm.errors import ShmgemmError, Unsupported
from shmgemm.futures import Future, Together

Array = NDArray[Any]


def _code(dtype: object) -> int:
    """The code of a NumPy dtype or a name, 0 where there is none. bfloat16 is `ml_dtypes`'s."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
    return _dtypes.CODES.get(name.removeprefix("torch."), 0)


def _wrap(block: Any, dtype: object) -> Array:
    array = np.asarray(block)
    return array.view(dtype) if array.dtype == np.uint16 and isinstance(dtype, np.dtype) else array


def _new(shape: tuple[int, ...], code: int, dtype: object = None) -> Array:
    if 0 in shape:
        return np.empty(shape, np.uint16 if code == _dtypes.BFLOAT16 else _dtypes.NAMES[code])
    return _wrap(_core.current_session().empty(shape, code), dtype)


def empty(*sizes: int | Iterable[int], dtype: object = "float32") -> Array:
    """Uninitialised array in the region. A bfloat16 given by name comes as its bits, in uint16.

    Raises RegionFull where it does not fit and Unsupported for a dtype that no device multiplies.
    """
    numbers = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], Iterable) else sizes
    shape = tuple(int(size) for size in numbers)  # type: ignore[arg-type]
    code = _code(dtype)
    if not code or any(size < 0 for size in shape):
        raise Unsupported(
            f"shmgemm.empty: got shape {shape} and dtype {dtype}; expected no negative size and one"
            f" of {', '.join(_dtypes.CODES)}"
        )
    return _new(shape, code, dtype)


def _operand(value: object, op: str, name: str, dimensions: int) -> Array:
    if not isinstance(value, np.ndarray):
        raise Unsupported(
            f"{op}: got {name} of type {type(value).__module__}.{type(value).__name__}; expected"
            " all operands to be torch tensors, or all to be NumPy arrays"
        )
    if value.ndim < dimensions:
        raise Unsupported(
            f"{op}: got {name} of shape {value.shape}; expected {dimensions} dimensions at least"
        )
    if _code(value.dtype) not in _dtypes.INPUTS:
        hint = "; call .astype('float32') on it first" if value.dtype == np.float64 else ""
        raise Unsupported(
            f"{op}: got {name} of {value.dtype}; expected {_dtypes.INPUT_NAMES}{hint}"
        )
    item = value.itemsize
    if any(stride < 0 or stride % item for stride in value.strides):
        return value.copy()
    return value


def gemm(a: object, b: object, *, out_dtype: Any = None, sim_device: int = 0) -> Array:
    """A[..., M, K] @ B[..., K, N] on the simulated device, as numpy.matmul from two dimensions on.

    Types and errors as for torch tensors (see shmgemm.ops.gemm).
    """
    return gemm_async(a, b, out_dtype=out_dtype, sim_device=sim_device).result()


def linear(input: object, weight: object, bias: object = None, *, sim_device: int = 0) -> Array:
    """input[..., K] @ weight[N, K].T + bias[N] on the simulated device."""
    return linear_async(input, weight, bias, sim_device=sim_device).result()


def batch(pairs: list[tuple[object, object]], *, sim_device: int = 0) -> list[Array]:
    """The products of (A, B) pairs in one submission (see shmgemm.ops.batch)."""
    products = [_gemm(a, b, None, sim_device) for a, b in pairs]
    try:
        sent = [product.place() for product in products]
        together = [call for _, calls, _ in sent for call in calls]
        if together:
            _core.current_session().gemm_batch(together)
    except ShmgemmError as error:
        return [product.rescue(error) for product in products]
    return [result for result, *_ in sent]


def gemm_async(
    a: object, b: object, *, out_dtype: Any = None, sim_device: int = 0
) -> Future[Array]:
    """As `gemm`, without waiting (see shmgemm.ops.gemm_async)."""
    return _gemm(a, b, out_dtype, sim_device).send()


def _gemm(a: object, b: object, out_dtype: Any, sim_device: int) -> _Product:
    op = "shmgemm.gemm"
    first, second = _operand(a, op, "a", 2), _operand(b, op, "b", 2)
    return _product(first, second, None, out_dtype, sim_device, is_linear=False)


def linear_async(
    input: object, weight: object, bias: object = None, *, sim_device: int = 0
) -> Future[Array]:
    """As `linear`, without waiting."""
    op = "shmgemm.linear"
    x, w = _operand(input, op, "input", 1), _operand(weight, op, "weight", 2)
    if w.ndim != 2:
        raise Unsupported(f"{op}: got weight of shape {w.shape}; expected two dimensions")
    vector = bias if bias is None else _operand(bias, op, "bias", 1) if w.dtype != np.int8 else bias
    if vector is not None and getattr(vector, "shape", None) != (w.shape[0],):
        raise Unsupported(
            f"{op}: got bias of shape {getattr(vector, 'shape', None)}; expected ({w.shape[0]},)"
        )
    rows = x[np.newaxis] if x.ndim == 1 else x
    take = (lambda result: result[0]) if x.ndim == 1 else None
    return _product(rows, w.T, vector, None, sim_device, is_linear=True).send(take)


@dataclass(frozen=True)
class _Product:
    """A checked product: how it is cut into commands, and what becomes of it on the CPU."""

    a: Array
    b: Array
    dense_a: bool  # the commands read a dense copy of A, made in the region
    bias: Any  # dense, as devices read it, or None
    steps: Plan
    code: int
    out_code: int
    dtype: object  # of the result, as NumPy knows it
    sim_device: int
    op: str

    def place(self) -> tuple[Array, list[_core.GemmCall], Array]:
        """Where the result will lie, what to send for it, and A as that reads it."""
        result, a = _new(self.steps.shape, self.out_code, self.dtype), self.a
        if not self.steps.starts:
            result[...] = 0 if self.bias is None else self.bias
        if self.dense_a:
            a = _new(a.shape, self.code, a.dtype)
            a[...] = self.a
        calls = [self._call(a, result, *starts) for starts in self.steps.starts]
        if self.dense_a:
            calls[0].bytes_copied = a.nbytes
        return result, calls, a

    def _call(
        self, a: Array, result: Array, a_start: int, b_start: int, c_start: int
    ) -> _core.GemmCall:
        steps, item = self.steps, self.a.itemsize
        return _core.GemmCall(
            self.op.removeprefix("shmgemm."),
            steps.m,
            steps.n,
            steps.k,
            steps.batch,
            self.code,
            self.out_code,
            (a.ctypes.data + a_start * item, *steps.a),
            (self.b.ctypes.data + b_start * item, *steps.b),
            (result.ctypes.data + c_start * result.itemsize, *steps.c, 1),
            0 if self.bias is None else self.bias.ctypes.data,
            False,
            self.sim_device,
        )

    def send(self, finish: Callable[[Array], Array] | None = None) -> Future[Array]:
        try:
            result, calls, a = self.place()
            sent = None
            if calls:
                session = _core.current_session()
                parts = [session.gemm_async(call) for call in calls]
                sent = Together(parts, (a, self.b, self.bias, result))
        except ShmgemmError as error:
            result, sent = self.rescue(error), None
        if sent is None:
            return Future(None, result if finish is None else finish(result))
        return Future(sent, result, self.rescue, finish)

    def rescue(self, error: ShmgemmError) -> Array:
        """By NumPy, counted and warned about, or the error."""
        steps = self.steps
        batch = steps.batch * len(steps.starts)
        _fallback.fall(error, self.op, steps.m, steps.n, steps.k, batch)
        return _on_cpu(self.a, self.b, self.bias, self.out_code, self.dtype)


def _product(
    a: Array, b: Array, bias: Any, out_dtype: Any, sim_device: int, *, is_linear: bool
) -> _Product:
    op = "shmgemm.linear" if is_linear else "shmgemm.gemm"
    if a.dtype != b.dtype:
        raise Unsupported(f"{op}: expected operands of one dtype, got {a.dtype} and {b.dtype}")
    _dtypes.check_sim_device(sim_device)
    code = _code(a.dtype)
    out_code = _dtypes.output_code(code, None if out_dtype is None else _code(out_dtype))
    if out_code is None:
        raise Unsupported(f"{op}: got out_dtype {out_dtype} for operands of {a.dtype}")
    strides = [[stride // x.itemsize for stride in x.strides] for x in (a, b)]
    if is_linear:
        steps, dense_a = plan_linear(a.shape, strides[0], b.shape, strides[1])
    else:
        steps, dense_a = plan(a.shape, strides[0], b.shape, strides[1], op), False
    if bias is not None:
        bias = np.ascontiguousarray(bias, dtype="int32" if out_code == _dtypes.INT32 else "float32")
    dtype = a.dtype if out_dtype is None else out_dtype
    return _Product(a, b, dense_a, bias, steps, code, out_code, dtype, sim_device, op)


def _wrapped_dtype(code: int, dtype: object) -> Any:
    return dtype if code == _dtypes.BFLOAT16 else _dtypes.NAMES[code]


def _on_cpu(a: Array, b: Array, bias: Any, out_code: int, dtype: object) -> Array:
    wide = np.int64 if out_code == _dtypes.INT32 else np.float32
    product = np.matmul(a.astype(wide), b.astype(wide))
    if bias is not None:
        product += bias
    result: Array = product.astype(_wrapped_dtype(out_code, dtype))
    return result
