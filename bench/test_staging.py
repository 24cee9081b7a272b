"""What lies outside of the region: copied in by layout, and by a pipelined model's branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import shmgemm
from shmgemm.bench.overlap import Branches

LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "contiguous": lambda: torch.randn(1024, 1024),
    "rows": lambda: torch.randn(1024, 2048)[:, :1024],
    "heads": lambda: torch.randn(1024, 16, 64).transpose(0, 1),
    "transposed": lambda: torch.randn(1024, 1024).mT,
    "elements": lambda: torch.randn(1024, 2048)[:, ::2],
}
BYTES = 1024 * 1024 * 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(layout: str, timed: Any, benchmark: Any, in_region: Any) -> None:
    outside = LAYOUTS[layout]()
    column = in_region(torch.randn(outside.shape[-1], 1))
    with torch.no_grad():
        result = timed(lambda: shmgemm.gemm(outside, column))
    exact = outside.double() @ column.double()
    torch.testing.assert_close(result.double(), exact, rtol=1e-3, atol=1e-3)
    assert BYTES <= benchmark.extra_info["bytes_copied"] <= BYTES * 5 / 4


@pytest.mark.parametrize("how", ["blocking", "pipelined", "in_region"])
def test_branches(how: str, timed: Any, benchmark: Any, in_region: Any) -> None:
    model = Branches()
    inputs = [torch.randn(1024, 1024) for _ in model.layers]
    with torch.inference_mode():
        exact = [layer(x) for layer, x in zip(model.layers, inputs, strict=True)]
    shmgemm.offload_(model, pipeline=how == "pipelined")
    given = [in_region(x) for x in inputs] if how == "in_region" else inputs
    with torch.inference_mode():
        found = timed(lambda: model(given))
    for result, right in zip(found, exact, strict=True):
        torch.testing.assert_close(result, right, rtol=1e-3, atol=1e-3)
    copied = 0 if how == "in_region" else len(inputs) * BYTES
    assert benchmark.extra_info["bytes_copied"] == copied
