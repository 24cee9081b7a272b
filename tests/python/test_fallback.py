"""Where the device cannot: the CPU computes, a warning says why, it is counted; strict raises."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import scripts  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm import _fallback  # noqa: E402
from shmgemm import session as session_module  # noqa: E402

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


@pytest.mark.parametrize("strict", ["0", "1"])
def test_a_missing_engine_is_no_fallback(strict: str) -> None:
    """It is an installation to repair, and every product of the program would fall back."""
    script = "import torch, shmgemm; shmgemm.gemm(torch.ones(2, 2), torch.ones(2, 2))"
    done = scripts.run(script, SHMGEMM_ENGINE_PATH="/nonexistent/engine", SHMGEMM_STRICT=strict)
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
    assert scripts.output(CTRL_C.format(statement=statement)) == "right"


def test_argument_errors_never_fall_back(device: Any) -> None:
    before = _fallback.counters()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(shmgemm.Unsupported):
            shmgemm.gemm(torch.ones(2, 3), torch.ones(2, 3))
        with pytest.raises(shmgemm.Unsupported):
            shmgemm.gemm(torch.ones(2, 2), torch.ones(2, 2), sim_device=255)
    assert _fallback.counters() == before


@pytest.mark.parametrize("devices", [1, 3])
def test_a_device_that_is_not_there_is_named_with_those_that_are(devices: int) -> None:
    matrix = torch.ones(2, 2)
    there = {1: "0: the session has one device", 3: "0 to 2: the session has 3 devices"}[devices]
    with shmgemm.open(region=4 << 20, devices=devices) as session:
        for call in (
            lambda: shmgemm.gemm(matrix, matrix, sim_device=devices),
            lambda: shmgemm.linear(matrix, matrix, sim_device=devices),
            lambda: shmgemm.gemm(matrix.numpy(), matrix.numpy(), sim_device=devices),
            lambda: session.info(devices),
        ):
            with pytest.raises(shmgemm.Unsupported) as caught:
                call()
            assert str(caught.value).endswith(f": got sim_device {devices}; expected {there}")
    with pytest.raises(shmgemm.Unsupported, match="255; expected a device number from 0 to 254"):
        shmgemm.DeviceLinear(2, 2, sim_device=255)


# --- a session that another thread closes ---------------------------------------------------------


@pytest.fixture
def no_session() -> Iterator[None]:
    """No session is current when the test begins, the module's again when it has ended."""
    former = session_module.current_or_none()
    session_module.make_current(None)
    yield
    session_module.make_current(former)


class Worker:
    """A thread that multiplies without end, until it is told to stop or an op fails."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.ops = 0
        self.stop = False
        self.error: Exception | None = None
        self.progress = threading.Condition()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        self.await_ops(3)

    def run(self) -> None:
        try:
            while not self.stop:
                shmgemm.gemm(self.matrix, self.matrix)
                with self.progress:
                    self.ops += 1
                    self.progress.notify_all()
        except Exception as error:
            self.error = error

    def await_ops(self, more: int) -> None:
        with self.progress:
            wanted = self.ops + more
            assert self.progress.wait_for(lambda: self.ops >= wanted, timeout=60)

    def join(self) -> Exception | None:
        self.thread.join(60)
        return self.error


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("size", [4, 700])
def test_a_session_closed_under_threads_is_told_to_them(strict: bool, size: int) -> None:
    matrix = torch.ones(size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with shmgemm.open(region=64 << 20, strict=strict):
            workers = [Worker(matrix), Worker(matrix), Worker(matrix.numpy())]
        errors = [worker.join() for worker in workers]
        assert [type(error) for error in errors] == [shmgemm.SessionClosed] * 3, errors
        assert session_module.current_or_none() is None, "a default session opened unseen"


@pytest.mark.usefixtures("no_session")
def test_the_thread_that_closes_a_session_may_go_on_without_one() -> None:
    matrix = torch.ones(4, 4)
    for close in (lambda s: s.close(), lambda s: s.core.close(), lambda s: s.__exit__(*[None] * 3)):
        session = shmgemm.open(region=4 << 20)
        shmgemm.gemm(matrix, matrix)
        close(session)
        shmgemm.gemm(matrix, matrix)
        shmgemm.current().close()


class Steps:
    """A thread that computes an op when it is told to."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)

    def outcome(self) -> str:
        matrix = torch.ones(4, 4)
        try:
            self.pool.submit(shmgemm.gemm, matrix, matrix).result(60)
        except shmgemm.SessionClosed as error:
            return str(error)
        return "computed"


@pytest.mark.usefixtures("no_session")
def test_a_thread_is_told_once() -> None:
    thread = Steps()
    with shmgemm.open(region=4 << 20):
        assert thread.outcome() == "computed"
    told = "the session this thread used was closed by another thread"
    assert thread.outcome().startswith(told)
    assert session_module.current_or_none() is None
    assert [thread.outcome(), thread.outcome()] == ["computed"] * 2
    shmgemm.current().close()
    assert thread.outcome().startswith(told)
    assert Steps().outcome() == "computed", "a thread that used none opens a default session"
    shmgemm.current().close()


def test_a_thread_goes_on_with_the_session_that_takes_over() -> None:
    thread = Steps()
    with shmgemm.open(region=4 << 20) as outer:
        with shmgemm.open(region=4 << 20):
            assert thread.outcome() == "computed"
        assert thread.outcome() == "computed"
        assert outer.stats()["ops"] == 1
    with shmgemm.open(region=4 << 20) as other:
        assert thread.outcome() == "computed"
        assert other.stats()["ops"] == 1


@pytest.mark.usefixtures("no_session")
def test_another_session_that_was_not_current_does_not_count() -> None:
    thread = Steps()
    with shmgemm.open(region=4 << 20) as first:
        with shmgemm.open(region=4 << 20) as second:
            second._former = None
        thread.pool.submit(first.info).result(60)
        assert thread.outcome() == "computed", "first is open, though no longer current"
        shmgemm.current().close()
