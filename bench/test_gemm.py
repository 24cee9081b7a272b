"""Products from Python: sizes, types, gradients, batches, and the socket way beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import shmgemm
from shmgemm.bench.baseline import Client

SHAPES = [(4, 8, 16), (32, 128, 256), (128, 512, 512), (512, 512, 512), (1024, 1024, 1024)]
Copy = Callable[[torch.Tensor], torch.Tensor]


def name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def check(result: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    exact = a.double() @ b.double()
    torch.testing.assert_close(result.detach().double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=name)
def test_float32(shape: tuple[int, int, int], timed: Any, in_region: Copy, benchmark: Any) -> None:
    m, k, n = shape
    a, b = (in_region(torch.randn(*size)) for size in ((m, k), (k, n)))
    with torch.no_grad():
        check(timed(lambda: shmgemm.gemm(a, b)), a, b)
    assert benchmark.extra_info["simulated_cycles"] > 0
    assert benchmark.extra_info["bytes_copied"] == 0


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client() as opened:
        yield opened


@pytest.mark.parametrize("shape", SHAPES, ids=name)
def test_socket_baseline(shape: tuple[int, int, int], client: Client, benchmark: Any) -> None:
    m, k, n = shape
    random = np.random.default_rng(1)
    a, b = (random.standard_normal(size, np.float32) for size in ((m, k), (k, n)))
    c = np.full((m, n), np.nan, np.float32)
    benchmark(client.gemm, a, b, c)
    check(*(torch.from_numpy(matrix) for matrix in (c, a, b)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8"])
def test_low_precision(dtype: str, timed: Any, in_region: Copy) -> None:
    values = torch.randint(-3, 4, (2, 512, 512))
    out = torch.int32 if dtype == "int8" else torch.float32
    a, b = (in_region(matrix.to(getattr(torch, dtype))) for matrix in values)
    with torch.no_grad():
        result = timed(lambda: shmgemm.gemm(a, b, out_dtype=out))
    assert torch.equal(result.long(), values[0] @ values[1])


def test_staged(timed: Any, benchmark: Any, session: shmgemm.Session) -> None:
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    with torch.no_grad():
        check(timed(lambda: shmgemm.gemm(a, b)), a, b)
    assert benchmark.extra_info["bytes_copied"] == a.numel() * 4 + b.numel() * 4


def test_batched(timed: Any, in_region: Copy) -> None:
    a, b = in_region(torch.randn(12, 32, 64)), in_region(torch.randn(12, 64, 32))
    with torch.no_grad():
        check(timed(lambda: shmgemm.gemm(a, b)), a, b)


def test_forward_and_backward(timed: Any, in_region: Copy, benchmark: Any) -> None:
    x = in_region(torch.randn(32, 128)).requires_grad_()
    layer = shmgemm.DeviceLinear(128, 256)

    def step() -> torch.Tensor:
        x.grad = None
        layer.zero_grad()
        layer(x).square().sum().backward()
        assert x.grad is not None
        return x.grad

    gradient = timed(step)
    weight, bias = (parameter.detach().double() for parameter in layer.parameters())
    output = x.detach().double() @ weight.T + bias
    torch.testing.assert_close(gradient.double(), 2 * output @ weight, rtol=1e-3, atol=1e-3)
    assert benchmark.extra_info["ops"] == 3
