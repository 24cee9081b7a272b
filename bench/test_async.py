"""Products without waiting, by how many are under way, and several in one submission."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import shmgemm
from shmgemm.bench.asynchronous import at_depth

COUNT = 64
Copy = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture
def operands(in_region: Copy) -> tuple[torch.Tensor, torch.Tensor]:
    return in_region(torch.randn(4, 8)), in_region(torch.randn(8, 16))


def check(results: list[torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> None:
    exact = a.double() @ b.double()
    for result in results:
        torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=1e-4)


def test_blocking(operands: Any, timed: Any, benchmark: Any) -> None:
    with torch.no_grad():
        check(timed(lambda: [shmgemm.gemm(*operands) for _ in range(COUNT)]), *operands)
    assert benchmark.extra_info["ops"] == COUNT


@pytest.mark.parametrize("depth", [1, 8, 64])
def test_depth(depth: int, operands: Any, timed: Any, benchmark: Any) -> None:
    with torch.no_grad():
        results = timed(lambda: at_depth(*operands, depth, COUNT))
    assert len(results) == depth
    check(results, *operands)
    assert benchmark.extra_info["ops"] == COUNT


@pytest.mark.parametrize("size", [1, 8, 32])
def test_batch(size: int, operands: Any, timed: Any, benchmark: Any) -> None:
    with torch.no_grad():
        results = timed(lambda: shmgemm.batch([operands] * size))
    assert len(results) == size
    check(results, *operands)
    assert benchmark.extra_info["ops"] == size
