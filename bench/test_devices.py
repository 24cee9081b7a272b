"""A linear layer on one simulated device and split over two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import shmgemm
from shmgemm.bench.devices import simulated_cycles

ROWS, FEATURES = 64, 2048


@pytest.fixture(scope="module")
def session() -> Iterator[shmgemm.Session]:
    with shmgemm.open(strict=True, devices=2) as opened:
        yield opened


@pytest.mark.parametrize("dim", [None, 0, 1], ids=["one", "columns", "terms"])
def test_linear(
    dim: int | None, session: shmgemm.Session, timed: Any, benchmark: Any, in_region: Any
) -> None:
    layer, x = torch.nn.Linear(FEATURES, FEATURES), in_region(torch.randn(ROWS, FEATURES))
    with torch.inference_mode():
        exact = layer(x)
    if dim is None:
        shmgemm.offload_(layer)
    else:
        shmgemm.shard_linear_(layer, 2, dim)
    with torch.inference_mode():
        result = timed(lambda: layer(x))
        torch.testing.assert_close(result, exact, rtol=1e-3, atol=1e-3)
        shmgemm.synchronize()
        before = simulated_cycles(session)
        layer(x)
        benchmark.extra_info["elapsed_cycles"] = simulated_cycles(session) - before
    assert benchmark.extra_info["elapsed_cycles"] > 0
    assert benchmark.extra_info["bytes_copied"] == 0
    assert benchmark.extra_info["ops"] == {None: 1, 0: 2, 1: 4}[dim]
