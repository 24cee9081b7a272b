"""Fixtures of the pytest-benchmark suites: `pytest bench --benchmark-only`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import shmgemm

Bench = Callable[..., Any]


@pytest.fixture(scope="module")
def session() -> Iterator[shmgemm.Session]:
    """A strict session: a product that fell back to the CPU is an error, not a fast result."""
    with warnings.catch_warnings(), shmgemm.open(strict=True) as opened:
        warnings.simplefilter("error", shmgemm.FallbackWarning)
        yield opened


@pytest.fixture
def timed(benchmark: Any, session: shmgemm.Session) -> Bench:
    """Benchmarks a call and notes the simulated cycles and copied bytes of one such call."""

    def run(call: Callable[[], Any]) -> Any:
        call()
        before = session.stats()
        call()
        after = session.stats()
        benchmark.extra_info["simulated_cycles"] = after["cycles"] - before["cycles"]
        benchmark.extra_info["bytes_copied"] = after["bytes_copied"] - before["bytes_copied"]
        benchmark.extra_info["ops"] = after["ops"] - before["ops"]
        return benchmark(call)

    return run


@pytest.fixture
def in_region(session: shmgemm.Session) -> Callable[[torch.Tensor], torch.Tensor]:
    """Copies a tensor into the session's region."""

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        return shmgemm.empty(*tensor.shape, dtype=tensor.dtype).copy_(tensor)

    return copy
