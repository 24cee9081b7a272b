"""Where the device cannot: the CPU computes, a warning says why, it is counted; strict raises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import shmgemm  # noqa: E402
from shmgemm import _fallback  # noqa: E402

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class Full:
    """A session whose region has room for nothing more."""

    def __init__(self, **options: Any) -> None:
        self.session = shmgemm.open(region=4 << 20, **options)
        self.blocks: list[torch.Tensor] = []
        self.fill()

    def fill(self) -> None:
        size = 1 << 20
        while size:
            try:
                self.blocks.append(shmgemm.empty(size, dtype=torch.int8))
            except shmgemm.RegionFull:
                size //= 2

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: Any) -> None:
        self.blocks.clear()
        self.session.close()


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_room_falls_back(dtype: torch.dtype) -> None:
    x, w, bias = (torch.randn(s).to(dtype) for s in ((2, 3, 8), (5, 8), (5,)))
    with Full():
        before = _fallback.counters()
        with pytest.warns(shmgemm.FallbackWarning, match=r"linear 6x8 @ 8x5 .*CPU.*RegionFull"):
            ours = shmgemm.linear(x, w, bias)
        with pytest.warns(shmgemm.FallbackWarning, match=r"gemm 2 x 3x8 @ 8x3"):
            product = shmgemm.gemm(x, x.mT)
        after = _fallback.counters()
    wanted = x.double() @ w.double().mT + bias.double()
    assert (ours.dtype, product.dtype) == (dtype, dtype)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(ours.double(), wanted, rtol=step, atol=1e-5)
    torch.testing.assert_close(product.double(), x.double() @ x.double().mT, rtol=step, atol=1e-5)
    assert after.fallen_ops - before.fallen_ops == 2
    assert after.fallen_macs - before.fallen_macs == 6 * 8 * 5 + 2 * 3 * 8 * 3


def test_training_goes_on_by_fallback() -> None:
    x, w = torch.randn(3, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    before = _fallback.counters().fallen_ops
    with Full(), pytest.warns(shmgemm.FallbackWarning):
        shmgemm.linear(x, w).square().sum().backward()
    assert _fallback.counters().fallen_ops == before + 3
    ours = x.grad.clone(), w.grad.clone()
    x.grad = w.grad = None
    torch.nn.functional.linear(x, w).square().sum().backward()
    torch.testing.assert_close(ours, (x.grad, w.grad), rtol=1e-4, atol=1e-4)


def test_int8_falls_back_exactly() -> None:
    a = torch.randint(-128, 128, (3, 2000), dtype=torch.int8)
    with Full(), pytest.warns(shmgemm.FallbackWarning):
        ours = shmgemm.gemm(a, a.mT)
    assert ours.dtype is torch.int32
    assert torch.equal(ours.long(), a.long() @ a.long().mT)


def test_strict_raises_forward_and_backward() -> None:
    x, w = torch.randn(3, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    with Full(strict=True) as full:
        with pytest.raises(shmgemm.RegionFull, match="no room"):
            shmgemm.linear(x, w)
        full.blocks.clear()
        y = shmgemm.linear(x, w).sum()
        full.fill()
        with pytest.raises(shmgemm.RegionFull, match="no room"):
            y.backward()


def test_an_engine_that_died_is_replaced() -> None:
    a = torch.ones(4, 4)
    with shmgemm.open(region=4 << 20, strict=True) as session:
        shmgemm.gemm(a, a)
        os.kill(session.core.engine_pid, signal.SIGKILL)
        for _ in range(3):
            try:
                result = shmgemm.gemm(a, a)
                break
            except shmgemm.DeviceLost:
                continue
        assert torch.equal(result, a @ a)
        assert session.stats()["engine_starts"] == 2


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("strict", ["0", "1"])
def test_a_missing_engine_is_no_fallback(strict: str) -> None:
    """It is an installation to repair, and every product of the program would fall back."""
    script = "import torch, shmgemm; shmgemm.gemm(torch.ones(2, 2), torch.ones(2, 2))"
    done = run(script, SHMGEMM_ENGINE_PATH="/nonexistent/engine", SHMGEMM_STRICT=strict)
    assert done.returncode == 1
    assert "Unsupported: engine '/nonexistent/engine'" in done.stderr.splitlines()[-1]


CTRL_C = """
import os, signal, threading
import torch, shmgemm
shmgemm.open(strict=True)
a = shmgemm.empty(1500, 1500).fill_(1).requires_grad_()
y = shmgemm.gemm(a, a)
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    for _ in range(100_000):
        {statement}
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("not interrupted")
small = a[:3, :4].detach()
assert torch.equal(shmgemm.gemm(small, small.mT), small @ small.mT)
print("right")
"""


@pytest.mark.parametrize(
    "statement", ["shmgemm.gemm(a, a)", "y.backward(a.detach(), retain_graph=True)"]
)
def test_ctrl_c_ends_a_product_and_the_device_lives_on(statement: str) -> None:
    done = run(CTRL_C.format(statement=statement))
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_argument_errors_never_fall_back(device: Any) -> None:
    before = _fallback.counters()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(shmgemm.Unsupported):
            shmgemm.gemm(torch.ones(2, 3), torch.ones(2, 3))
        with pytest.raises(shmgemm.Unsupported):
            shmgemm.gemm(torch.ones(2, 2), torch.ones(2, 2), sim_device=7)
    assert _fallback.counters() == before
