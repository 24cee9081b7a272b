"""What staging costs for each layout: what lies outside of the region, beside memcpy.

A staged product less the same product in place; its floor is a memcpy of as many bytes into the
region, then the product in place, less the product in place. Both leave the engine to read what
the client has just written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import torch

import shmgemm

from .._dtypes import FLOAT32
from .harness import Row, interleaved, progress, specs

_REGION = 512 << 20


def run(quick: bool = False) -> list[Row]:
    """All rows of [staging] in goals.toml."""
    with shmgemm.open(strict=True, region=_REGION) as session, torch.no_grad():
        return [*_inputs(session, quick), *_fetches(session, quick)]


def _layouts() -> dict[str, Callable[[], torch.Tensor]]:
    return {
        "contiguous_1": lambda: torch.randn(512, 512),
        "contiguous_16": lambda: torch.randn(2048, 2048),
        "contiguous_64": lambda: torch.randn(4096, 4096),
        "rows": lambda: torch.randn(4096, 2048)[:, :1024],
        "small_gaps": lambda: torch.randn(4096, 1024)[:, :1000],
        "heads": lambda: torch.randn(4096, 16, 64).transpose(0, 1),
        "transposed": lambda: torch.randn(2048, 2048).mT,
        "elements": lambda: torch.randn(2048, 4096)[:, ::2],
    }


def _inputs(session: shmgemm.Session, quick: bool) -> Iterator[Row]:
    rows = specs("staging")
    for key, make in _layouts().items():
        progress(f"staging: {rows[key].name}")
        yield _input(session, make(), quick, rows[key].row)


def _input(
    session: shmgemm.Session, outside: torch.Tensor, quick: bool, row: Callable[..., Row]
) -> Row:
    payload = outside.numel() * outside.itemsize
    inside = shmgemm.empty(*outside.shape).copy_(outside)
    packed = outside.contiguous()
    column = shmgemm.empty(outside.shape[-1], 1).normal_()
    before = session.stats()["bytes_copied"]
    _check(shmgemm.gemm(outside, column), outside, column)
    copied = session.stats()["bytes_copied"] - before
    if not payload <= copied <= payload * 5 / 4:
        raise RuntimeError(f"staging copied {copied} bytes of an operand of {payload}")

    def by_hand() -> None:
        ctypes.memmove(inside.data_ptr(), packed.data_ptr(), payload)
        shmgemm.gemm(inside, column)

    return _beside_memcpy(
        payload,
        quick,
        row,
        staged=lambda: shmgemm.gemm(outside, column),
        by_hand=by_hand,
        in_place=lambda: shmgemm.gemm(inside, column),
    )


def _check(result: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(result.double(), a.double() @ b.double(), rtol=1e-3, atol=1e-3)


def _beside_memcpy(
    payload: int,
    quick: bool,
    row: Callable[..., Row],
    *,
    staged: Callable[[], object],
    by_hand: Callable[[], object],
    in_place: Callable[[], object],
) -> Row:
    """GB/s of what the first two calls take longer than the third."""
    calls = {"staged": staged, "by hand": by_hand, "in place": in_place}
    times = interleaved(calls, rounds=3 if quick else 15, samples=3 if quick else 9)
    ours, floor = (times[how].p50 - times["in place"].p50 for how in ("staged", "by hand"))
    return row(payload / max(ours, 1e-9) / 1e9, None, payload / max(floor, 1e-9) / 1e9)


def _fetches(session: shmgemm.Session, quick: bool) -> Iterator[Row]:
    """C outside of the region: copied back after the product."""
    row = specs("staging")["fetch"]
    progress(f"staging: {row.name}")
    size = 2048
    a, b = shmgemm.empty(size, 1).normal_(), shmgemm.empty(1, size).normal_()
    outside, inside = torch.empty(size, size), shmgemm.empty(size, size)

    def product(c: torch.Tensor) -> None:
        x, y, z = ((t.data_ptr(), 0, t.stride(0), 1) for t in (a, b, c))
        session.core.gemm("gemm", size, size, 1, 1, FLOAT32, FLOAT32, x, y, z, 0, False, 0)

    def by_hand() -> None:
        product(inside)
        ctypes.memmove(outside.data_ptr(), inside.data_ptr(), inside.nbytes)

    product(outside)
    _check(outside, a, b)
    yield _beside_memcpy(
        outside.nbytes,
        quick,
        row.row,
        staged=lambda: product(outside),
        by_hand=by_hand,
        in_place=lambda: product(inside),
    )
