"""How long square products take, by size: torch, the device by its engines, and the socket way.

The series run one after the other, each with a session or a server of its own, on values that are
checked against float64.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import shmgemm

from .. import _files, sst
from ..errors import Unsupported
from .baseline import Client
from .harness import interleaved, progress
from .small_gemm import in_region

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
QUICK_SIZES = (8, 64, 512)
_REGION = 256 << 20
_SPIN_S = 0.15  # NumPy's OpenBLAS threads burn their CPUs for 0.1 s after a product

Multiply = Callable[[], Tensor]
Series = Callable[[], AbstractContextManager[Callable[[Tensor, Tensor], Multiply]]]


@dataclass(frozen=True)
class Point:
    """A square product of one series, in microseconds."""

    series: str
    size: int
    p50_us: float
    p99_us: float


@contextmanager
def _torch() -> Iterator[Callable[[Tensor, Tensor], Multiply]]:
    yield lambda a, b: lambda: torch.mm(a, b)


@contextmanager
def _session(engine: str, guest: bool) -> Iterator[Callable[[Tensor, Tensor], Multiply]]:
    with shmgemm.open(engine=engine, guest=guest, strict=True, region=_REGION):

        def prepare(a: Tensor, b: Tensor) -> Multiply:
            ours = in_region(a), in_region(b)
            return lambda: shmgemm.gemm(*ours)

        yield prepare


@contextmanager
def _sockets() -> Iterator[Callable[[Tensor, Tensor], Multiply]]:
    with Client() as client:

        def prepare(a: Tensor, b: Tensor) -> Multiply:
            c = torch.empty(a.shape[0], b.shape[1])

            def multiply() -> Tensor:
                client.gemm(a.numpy(), b.numpy(), c.numpy())
                return c

            return multiply

        yield prepare


def series(guest: bool) -> dict[str, Series]:
    """By the name that the picture shows; SST where it is there, a guest where asked for."""
    found: dict[str, Series] = {
        "torch on the CPU": _torch,
        "shmgemm, embedded engine": partial(_session, "embedded", False),
    }
    try:
        sst.find()
        sst.library_folder()
    except Unsupported as error:
        progress(f"sizes: the series of SST is left out: {error}")
    else:
        found["shmgemm, SST engine"] = partial(_session, "sst", False)
    if guest:
        found["shmgemm, through a guest"] = partial(_session, "embedded", True)
    found["sockets, operands inline"] = _sockets
    return found


def measure(which: Mapping[str, Series], sizes: Sequence[int], quick: bool) -> list[Point]:
    """A point for each series and size; AssertionError where a product is wrong."""
    found = []
    for name, opened in which.items():
        time.sleep(_SPIN_S)
        with opened() as prepare, torch.no_grad():
            for size in sizes:
                progress(f"sizes: {name}, {size}^3")
                found.append(_point(name, size, prepare, quick))
    return found


def _point(
    name: str, size: int, prepare: Callable[[Tensor, Tensor], Multiply], quick: bool
) -> Point:
    generator = torch.Generator().manual_seed(size)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    multiply = prepare(a, b)
    torch.testing.assert_close(multiply().double(), a.double() @ b.double(), rtol=1e-3, atol=1e-3)
    samples = max(3, min(300, int(1e9 / size**3)))
    rounds, samples = (1, max(2, samples // 20)) if quick else (5, samples)
    taken = interleaved({name: multiply}, rounds=rounds, samples=samples, warm=1)[name]
    return Point(name, size, *(round(seconds * 1e6, 3) for seconds in (taken.p50, taken.p99)))


def write_csv(points: Sequence[Point], path: Path) -> Path:
    """The points: series, size, p50_us, p99_us."""
    with _files.named("cannot write", path), path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("series", "size", "p50_us", "p99_us"))
        writer.writerows(astuple(point) for point in points)
    return path


def draw(out: str | os.PathLike[str], guest: bool, quick: bool) -> tuple[Path, Path]:
    """Measure, write the picture and a csv of the same name beside it; both paths.

    Raises ValueError for a path without a picture's ending, ImportError without matplotlib, OSError
    where the folder is not there, all before anything is measured.
    """
    from .. import plots

    path = Path(out)
    plots.check_ending(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {str(path)!r}: no folder {str(path.parent)!r}")
    points = measure(series(guest), QUICK_SIZES if quick else SIZES, quick)
    return plots.sizes(points, path), write_csv(points, path.with_suffix(".csv"))
