"""The same calls for NumPy arrays, torch or not: arrays in the region, products without a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shmgemm import _core, _dtypes, _fallback
from shmgemm._plan import plan
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
    """The products of (A, B) pairs, all sent before the first is waited for."""
    futures = [gemm_async(a, b, sim_device=sim_device) for a, b in pairs]
    return [future.result() for future in futures]


def gemm_async(
    a: object, b: object, *, out_dtype: Any = None, sim_device: int = 0
) -> Future[Array]:
    """As `gemm`, without waiting (see shmgemm.ops.gemm_async)."""
    op = "shmgemm.gemm"
    return _product(
        _operand(a, op, "a", 2), _operand(b, op, "b", 2), None, out_dtype, sim_device, op
    )


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
    return _product(rows, w.T, vector, None, sim_device, op, take)


def _product(
    a: Array,
    b: Array,
    bias: Any,
    out_dtype: Any,
    sim_device: int,
    op: str,
    finish: Callable[[Array], Array] | None = None,
) -> Future[Array]:
    if a.dtype != b.dtype:
        raise Unsupported(f"{op}: expected operands of one dtype, got {a.dtype} and {b.dtype}")
    _dtypes.check_sim_device(sim_device)
    code = _code(a.dtype)
    out_code = _dtypes.output_code(code, None if out_dtype is None else _code(out_dtype))
    if out_code is None:
        raise Unsupported(f"{op}: got out_dtype {out_dtype} for operands of {a.dtype}")
    dtype = a.dtype if out_dtype is None else out_dtype
    item, out_item = a.itemsize, _dtypes.ITEM_BYTES[out_code]
    steps = plan(
        a.shape,
        [stride // item for stride in a.strides],
        b.shape,
        [stride // item for stride in b.strides],
        op,
    )
    if bias is not None:
        bias = np.ascontiguousarray(bias, dtype="int32" if out_code == _dtypes.INT32 else "float32")
    if not steps.starts:
        result = _new(steps.shape, out_code, dtype)
        result[...] = 0 if bias is None else bias
        return Future(None, result if finish is None else finish(result))

    def rescue(error: ShmgemmError) -> Array:
        commands = len(steps.starts)
        _fallback.fall(error, op, steps.m, steps.n, steps.k, steps.batch * commands)
        return _on_cpu(a, b, bias, out_code, dtype)

    try:
        session = _core.current_session()
        result = _new(steps.shape, out_code, dtype)
        addresses = a.ctypes.data, b.ctypes.data, result.ctypes.data
        parts = [
            session.gemm_async(
                _core.GemmCall(
                    op.removeprefix("shmgemm."),
                    steps.m,
                    steps.n,
                    steps.k,
                    steps.batch,
                    code,
                    out_code,
                    (addresses[0] + a_start * item, *steps.a),
                    (addresses[1] + b_start * item, *steps.b),
                    (addresses[2] + c_start * out_item, *steps.c, 1),
                    0 if bias is None else bias.ctypes.data,
                    False,
                    sim_device,
                )
            )
            for a_start, b_start, c_start in steps.starts
        ]
    except ShmgemmError as error:
        fallen = rescue(error)
        return Future(None, fallen if finish is None else finish(fallen))
    return Future(Together(parts, (a, b, bias, result)), result, rescue, finish)


def _wrapped_dtype(code: int, dtype: object) -> Any:
    return dtype if code == _dtypes.BFLOAT16 else _dtypes.NAMES[code]


def _on_cpu(a: Array, b: Array, bias: Any, out_code: int, dtype: object) -> Array:
    wide = np.int64 if out_code == _dtypes.INT32 else np.float32
    product = np.matmul(a.astype(wide), b.astype(wide))
    if bias is not None:
        product += bias
    result: Array = product.astype(_wrapped_dtype(out_code, dtype))
    return result
