"""What products cost: beside bare OpenBLAS, beside sockets, by type; and what gets copied."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import shmgemm

from .baseline import Client
from .harness import Row, interleaved, measure, progress, specs, torch_threads

_SPIN_S = 0.15  # NumPy's OpenBLAS threads burn their CPUs for 0.1 s after a product
_SHAPES = {
    "socket_4x8x16": (4, 8, 16),
    "socket_32x128x256": (32, 128, 256),
    "socket_128x512x512": (128, 512, 512),
    "socket_512": (512, 512, 512),
    "socket_1024": (1024, 1024, 1024),
}


def run(quick: bool = False) -> list[Row]:
    """All rows of [gemm] in goals.toml."""
    rows = [*_large(quick)]
    with shmgemm.open(strict=True) as session, torch.no_grad():
        rows += [
            _bytes_copied(session),
            _staging(session, quick),
            *_beside_sockets(quick),
            *_types(quick),
        ]
    return rows


def _large(quick: bool) -> Iterator[Row]:
    for key, same_split in (("float32_1024", 1), ("float32_1024_shares", 0)):
        spec = specs("gemm")[key]
        progress(f"gemm: {spec.name}")
        rounds, size = 3 if quick else 40, 1024
        found = measure(
            "product", m=size, n=size, k=size, rounds=rounds, samples=3, same_split=same_split
        )
        ours, floor = found["ours"], found["floor"]
        assert ours is not None
        assert floor is not None
        yield spec.row(ours.p50 / 1e3, ours.p99 / 1e3, floor.p50 / 1e3)


def _in_region(tensor: torch.Tensor) -> torch.Tensor:
    copy = shmgemm.empty(*tensor.shape, dtype=tensor.dtype)
    return copy.copy_(tensor)


def _check(result: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(result.double(), a.double() @ b.double(), rtol=1e-3, atol=1e-3)


def _bytes_copied(session: shmgemm.Session) -> Row:
    progress("gemm: bytes copied")
    before = session.stats()["bytes_copied"]
    for m, k, n in _SHAPES.values():
        a, b = (_in_region(torch.randn(*shape)) for shape in ((m, k), (k, n)))
        _check(shmgemm.gemm(a, b), a, b)
    return specs("gemm")["bytes_copied"].row(session.stats()["bytes_copied"] - before)


def _staging(session: shmgemm.Session, quick: bool) -> Row:
    """What an unregistered A adds to a product, beside copying A by hand and multiplying in place.

    Both leave the engine to read a matrix that is no longer in any cache.
    """
    spec = specs("gemm")["staging"]
    progress(f"gemm: {spec.name}")
    outside = torch.randn(4096, 2048)
    inside, column = _in_region(outside), _in_region(torch.randn(2048, 1))
    target = shmgemm.empty(*outside.shape)
    before = session.stats()["bytes_copied"]
    _check(shmgemm.gemm(outside, column), outside, column)
    copied = session.stats()["bytes_copied"] - before
    once = outside.numel() * 4
    if copied != once:
        raise RuntimeError(f"staging copied {copied} bytes of an operand of {once}")
    calls = {
        "staged": lambda: shmgemm.gemm(outside, column),
        "by hand": lambda: shmgemm.gemm(target.copy_(outside), column),
        "in place": lambda: shmgemm.gemm(inside, column),
    }
    with torch_threads(1):
        times = interleaved(calls, rounds=3 if quick else 15, samples=7)
    staged, by_hand = (times[how].p50 - times["in place"].p50 for how in ("staged", "by hand"))
    return spec.row(once / staged / 1e9, None, once / by_hand / 1e9)


def _beside_sockets(quick: bool) -> Iterator[Row]:
    rows = specs("gemm")
    with Client() as client:
        for key, (m, k, n) in _SHAPES.items():
            progress(f"gemm: {rows[key].name} beside the socket way")
            a, b = torch.randn(m, k), torch.randn(k, n)
            c = torch.empty(m, n)
            ours = [_in_region(tensor) for tensor in (a, b)]
            client.gemm(a.numpy(), b.numpy(), c.numpy())
            _check(c, a, b)
            _check(shmgemm.gemm(*ours), a, b)

            def by_socket(matrices: tuple[torch.Tensor, ...] = (a, b, c)) -> None:
                client.gemm(*(matrix.numpy() for matrix in matrices))

            def by_us(operands: list[torch.Tensor] = ours) -> None:
                shmgemm.gemm(*operands)

            samples = max(3, min(1000, int(2e8 / (m * k * n + 2e5))))
            times = interleaved(
                {"ours": by_us, "socket": by_socket},
                rounds=2 if quick else 9,
                samples=max(2, samples // 20) if quick else samples,
                pause_s=_SPIN_S,
            )
            mine, floor = times["ours"].scaled(1e6), times["socket"].scaled(1e6)
            yield rows[key].row(mine.p50, mine.p99, floor.p50)


def _types(quick: bool) -> Iterator[Row]:
    rows = specs("gemm")
    size = 512
    values = torch.randint(-3, 4, (2, size, size))  # exact in every type, and so are the sums
    exact = values[0] @ values[1]
    calls = {}
    for name in ("float32", "float16", "bfloat16", "int8"):
        dtype: torch.dtype = getattr(torch, name)
        out = torch.int32 if name == "int8" else torch.float32
        a, b = (_in_region(matrix.to(dtype)) for matrix in values)

        def call(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.dtype = out) -> torch.Tensor:
            product: torch.Tensor = shmgemm.gemm(a, b, out_dtype=out)
            return product

        torch.testing.assert_close(call().long(), exact, rtol=0, atol=0)
        calls[name] = call
    progress("gemm: 512^3 in every type")
    times = interleaved(calls, rounds=2 if quick else 9, samples=3 if quick else 30)
    for name in ("float16", "bfloat16", "int8"):
        mine = times[name].scaled(1e6)
        yield rows[f"{name}_512"].row(mine.p50, mine.p99, times["float32"].p50 * 1e6)
