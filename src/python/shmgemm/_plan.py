"""How a strided, batched, broadcast product is cut into commands.

A command has one batch stride per operand. Rows that follow each other in memory become one M (a
folded `nn.Linear` input, say), neighbouring batch dimensions with one common stride become one
batch, and what is left over becomes several commands. Nothing is copied here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from shmgemm.errors import Unsupported

_LIMIT = 2**31


class Plan(NamedTuple):
    """One GEMM shape and where each of its commands starts, in elements."""

    shape: tuple[int, ...]  # of the result
    m: int
    n: int
    k: int
    batch: int
    a: tuple[int, int, int]  # batch, row and column stride
    b: tuple[int, int, int]
    c: tuple[int, int]  # batch and row stride; columns are dense
    starts: list[tuple[int, int, int]]  # of A, B and C


class _Loop(NamedTuple):
    size: int
    a: int
    b: int
    c: int


def broadcast_batch(a_batch: Sequence[int], b_batch: Sequence[int], op: str) -> tuple[int, ...]:
    """The common batch shape of two operands, or Unsupported."""
    result: list[int] = []
    for x, y in itertools.zip_longest(reversed(a_batch), reversed(b_batch), fillvalue=1):
        if x != y and x != 1 and y != 1:
            raise Unsupported(
                f"{op}: batch dimensions {tuple(a_batch)} of a and {tuple(b_batch)} of b cannot be"
                f" broadcast: {x} against {y}"
            )
        result.append(y if x == 1 else x)
    return tuple(reversed(result))


def plan(
    a_shape: Sequence[int],
    a_strides: Sequence[int],
    b_shape: Sequence[int],
    b_strides: Sequence[int],
    op: str = "shmgemm.gemm",
) -> Plan:
    """Plan A[..., M, K] @ B[..., K, N] into a dense C; both have two dimensions at least."""
    m, k = a_shape[-2:]
    if b_shape[-2] != k:
        raise Unsupported(
            f"{op}: a and b cannot be multiplied: {tuple(a_shape)} and {tuple(b_shape)}; expected"
            f" {k} rows in b, got {b_shape[-2]}"
        )
    n = b_shape[-1]
    batch_shape = broadcast_batch(a_shape[:-2], b_shape[:-2], op)
    shape = (*batch_shape, m, n)
    if 0 in shape or k == 0:
        return Plan(shape, m, n, k, 0, (0, 0, 1), (0, 0, 1), (0, n), [])

    a_batch = _batch_strides(a_shape, a_strides, len(batch_shape))
    b_batch = _batch_strides(b_shape, b_strides, len(batch_shape))
    loops = _merge(_loops(batch_shape, a_batch, b_batch, m * n))
    a_row, a_column = _regular(m, k, *a_strides[-2:])
    b_row, b_column = _regular(k, n, *b_strides[-2:])
    while loops and loops[-1].b == 0 and (m == 1 or loops[-1].a == m * a_row):
        inner = loops.pop()  # the same B for rows that go on in memory: a taller A
        a_row = inner.a if m == 1 else a_row
        m *= inner.size
    batch = (
        loops.pop(max(range(len(loops)), key=lambda i: loops[i].size))
        if loops
        else _Loop(1, 0, 0, 0)
    )
    if max(m, n, k, batch.size, abs(a_row), abs(b_row), abs(a_column), abs(b_column)) >= _LIMIT:
        raise Unsupported(
            f"{op}: {tuple(a_shape)} @ {tuple(b_shape)}: a dimension of 2**31 or more"
        )
    return Plan(
        shape,
        m,
        n,
        k,
        batch.size,
        (batch.a, a_row, a_column),
        (batch.b, b_row, b_column),
        (batch.c, n),
        _starts(loops),
    )


def plan_linear(
    shape: Sequence[int],
    strides: Sequence[int],
    matrix_shape: Sequence[int],
    matrix_strides: Sequence[int],
) -> tuple[Plan, bool]:
    """Plan input[..., M, K] @ matrix[K, N] as one product, whatever the input's layout.

    True where one command cannot say its rows: then the plan is of a dense copy of the input.
    """
    op = "shmgemm.linear"
    steps = plan(shape, strides, matrix_shape, matrix_strides, op)
    if steps.batch <= 1 and len(steps.starts) <= 1:
        return steps, False
    k = shape[-1]
    dense = plan((math.prod(shape[:-1]), k), (k, 1), matrix_shape, matrix_strides, op)
    return dense._replace(shape=steps.shape), True


def _batch_strides(shape: Sequence[int], strides: Sequence[int], dimensions: int) -> list[int]:
    own = [
        0 if size == 1 else stride for size, stride in zip(shape[:-2], strides[:-2], strict=True)
    ]
    return [0] * (dimensions - len(own)) + own


def _loops(batch_shape: tuple[int, ...], a: list[int], b: list[int], c_matrix: int) -> list[_Loop]:
    loops: list[_Loop] = []
    c_stride = c_matrix
    for size, a_stride, b_stride in zip(
        reversed(batch_shape), reversed(a), reversed(b), strict=True
    ):
        if size != 1:
            loops.append(_Loop(size, a_stride, b_stride, c_stride))
        c_stride *= size
    return loops[::-1]


def _merge(loops: list[_Loop]) -> list[_Loop]:
    merged: list[_Loop] = []
    for inner in loops:
        outer = merged[-1] if merged else None
        if outer and outer.a == inner.size * inner.a and outer.b == inner.size * inner.b:
            merged[-1] = _Loop(outer.size * inner.size, inner.a, inner.b, inner.c)
        else:
            merged.append(inner)
    return merged


def _regular(rows: int, columns: int, row_stride: int, column_stride: int) -> tuple[int, int]:
    """Strides of dimensions of size 1 mean nothing: give them ones that a device takes."""
    if columns == 1 and rows == 1:
        return 1, 1
    if columns == 1:
        return row_stride, 1
    if rows == 1:
        return (columns if column_stride == 1 else 1), column_stride
    return row_stride, column_stride


def _starts(loops: list[_Loop]) -> list[tuple[int, int, int]]:
    starts = []
    for index in itertools.product(*(range(loop.size) for loop in loops)):
        pairs = list(zip(index, loops, strict=True))
        starts.append(
            (
                sum(i * s.a for i, s in pairs),
                sum(i * s.b for i, s in pairs),
                sum(i * s.c for i, s in pairs),
            )
        )
    return starts
