"""Products sent without waiting: values, the life of a future, losses, autograd and transforms.

test_ops_python.py runs this file again without the C++ extension.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import draws  # noqa: E402
import scripts  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import shmgemm  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
examples = settings(max_examples=40)

LIMIT_S = 30.0
operands = draws.operands(st.integers(0, 17), draws.INPUTS, draws.whole_numbers)


def assert_exact(result: torch.Tensor, wanted: torch.Tensor) -> None:
    """Small whole numbers sum without error; what is left is one rounding to the result's type."""
    assert torch.equal(result, wanted.to(result.dtype))


@examples
@given(st.lists(operands, min_size=1, max_size=4))
def test_values_of_several_under_way(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    futures = [shmgemm.gemm_async(a, b) for a, b in pairs]
    for future, (a, b) in reversed(list(zip(futures, pairs, strict=True))):
        assert_exact(future.result(), a.double() @ b.double())


@examples
@given(operands, st.booleans(), st.booleans())
def test_linear(pair: tuple[torch.Tensor, torch.Tensor], has_bias: bool, vector: bool) -> None:
    a, b = pair
    if vector and a.numel():
        a = a[(0,) * (a.dim() - 1)]
    if b.numel() == 0:
        return
    weight = b[(0,) * (b.dim() - 2)].mT
    dtype = torch.int32 if a.dtype is torch.int8 else a.dtype
    bias = torch.arange(weight.shape[0]).to(dtype) if has_bias else None
    result = shmgemm.linear_async(a, weight, bias).result()
    wanted = a.double() @ weight.mT.double()
    assert_exact(result, wanted if bias is None else wanted + bias.double())


@examples
@given(operands)
def test_numpy(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = (x.float() for x in pair)
    future = shmgemm.gemm_async(a.numpy(), b.numpy())
    assert np.array_equal(future.result(LIMIT_S), (a.double() @ b.double()).numpy())
    turned = shmgemm.gemm_async(a.numpy()[..., ::-1, :], b.numpy()).result()
    assert np.array_equal(turned, (a.double() @ b.double()).numpy()[..., ::-1, :])


def test_numpy_linear() -> None:
    x, w, bias = (np.ones(s, "float32") for s in ((3, 4), (5, 4), (5,)))
    assert (shmgemm.linear_async(x, w, bias).result() == 5).all()
    assert shmgemm.linear_async(x[0], w).result().shape == (5,)


@pytest.mark.parametrize("out_dtype", draws.FLOATS)
def test_out_dtype(out_dtype: torch.dtype) -> None:
    a = torch.full((3, 3), 2.0)
    result = shmgemm.gemm_async(a, a, out_dtype=out_dtype).result()
    assert result.dtype is out_dtype
    assert (result == 12).all()


# --- a future's life --------------------------------------------------------------------------


def large() -> torch.Tensor:
    """A product of it keeps the engine busy for a while."""
    return shmgemm.empty(1024, 1024).fill_(1)


def test_done_wait_and_result() -> None:
    a = torch.ones(4, 4)
    future = shmgemm.gemm_async(a, a)
    assert future.wait(LIMIT_S)
    assert future.wait()
    assert future.done()
    first = future.result()
    assert first is future.result(0)
    assert future.exception() is None
    assert not future.cancel()
    assert repr(future) == "<shmgemm.Future done>"


def test_a_timeout_can_be_asked_again() -> None:
    a = large()
    future = shmgemm.gemm_async(a, a)
    assert not future.wait(0)
    assert repr(future) == "<shmgemm.Future under way>"
    with pytest.raises(TimeoutError, match="not there after 0 s"):
        future.result(0)
    with pytest.raises(TimeoutError):
        future.exception(timeout=-1)
    assert (future.result(LIMIT_S) == 1024).all()


def test_a_cancelled_product_is_counted_and_frees_its_memory(device: Any) -> None:
    gc.collect()
    shmgemm.synchronize()
    before = device.stats()
    a = torch.ones(900, 900)
    futures = [shmgemm.gemm_async(a, a) for _ in range(3)]
    assert futures[2].cancel()
    for _ in range(2):
        with pytest.raises(concurrent.futures.CancelledError):
            futures[2].result()
    assert isinstance(futures[2].exception(), concurrent.futures.CancelledError)
    assert futures[2].done()
    futures.clear()
    shmgemm.synchronize()
    gc.collect()
    after = device.stats()
    assert after["ops"] - before["ops"] == 3
    assert after["heap_used_bytes"] == before["heap_used_bytes"]


def test_dropped_products_are_counted_and_free_their_memory(device: Any) -> None:
    gc.collect()
    shmgemm.synchronize()
    before = device.stats()
    for _ in range(600):  # more than are kept track of at once
        shmgemm.gemm_async(torch.ones(8, 8), shmgemm.empty(8, 8))
        shmgemm.gemm_async(np.ones((8, 8), "float32"), np.ones((8, 8), "float32"))
    shmgemm.synchronize()
    gc.collect()
    after = device.stats()
    assert after["ops"] - before["ops"] == 1200
    assert after["heap_used_bytes"] == before["heap_used_bytes"]


def test_more_uncollected_results_than_the_ring_holds() -> None:
    a = torch.ones(2, 2)
    futures = [shmgemm.gemm_async(a * i, a) for i in range(700)]
    assert [int(future.result()[0, 0]) for future in futures] == [2 * i for i in range(700)]


def test_asyncio() -> None:
    async def run() -> None:
        a = large()
        ones = torch.ones(3, 3)
        assert (await shmgemm.gemm_async(a, a) == 1024).all()
        products = [shmgemm.gemm_async(ones, ones * i) for i in range(50)]
        found = await asyncio.wait_for(asyncio.gather(*products), LIMIT_S)
        assert [int(one[0, 0]) for one in found] == [3 * i for i in range(50)]
        assert (await products[1] == 3).all()

    asyncio.run(run())


def test_many_threads_share_a_future(device: Any) -> None:
    a = large().requires_grad_()
    ops = device.stats()["ops"]
    future = shmgemm.gemm_async(a, a)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(future.result())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert all(one is found[0] for one in found)
    assert device.stats()["ops"] - ops == 1


class Slow:
    """A product that fails, with all threads inside result() at once."""

    def __init__(self, threads: int) -> None:
        self._barrier = threading.Barrier(threads)

    def done(self) -> bool:
        return False

    def wait(self, _: float) -> bool:
        self._barrier.wait(LIMIT_S)
        return True

    def result(self) -> None:
        raise shmgemm.DeviceLost("gone")

    def cancel(self) -> bool:
        return False


def test_a_failure_is_rescued_once_for_all_threads() -> None:
    rescued: list[str] = []

    def rescue(error: shmgemm.ShmgemmError) -> str:
        rescued.append(str(error))
        return "by hand"

    future = shmgemm.Future(Slow(8), "", rescue)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: future.result(), range(8)))
    assert found == ["by hand"] * 8
    assert rescued == ["gone"]


CTRL_C = """
import os, signal, threading
import torch, shmgemm
shmgemm.open(region=64 << 20)
a = shmgemm.empty(2000, 2000).fill_(1)
futures = [shmgemm.gemm_async(a, a) for _ in range(2)]
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    futures[-1].result()
    threading.Event().wait(5)
    print("too fast")
except KeyboardInterrupt:
    print("interrupted", (futures[-1].result() == 2000).all().item())
"""


def test_ctrl_c() -> None:
    assert scripts.output(CTRL_C) == "interrupted True"


FORK = """
import os, sys
import torch, shmgemm
torch.set_num_threads(1)
shmgemm.open(region=16 << 20)
a = torch.ones(600, 600)
futures = [shmgemm.gemm_async(a, a) for _ in range(3)]
event = shmgemm.current_stream().record_event()
child = os.fork()
if child == 0:
    told = [futures[0].done(), futures[0].cancel(), futures[0].wait()]
    for ask in (futures[0].result, futures[1].result, event.synchronize, event.query):
        try:
            ask()
        except shmgemm.SessionClosed:
            told.append("closed")
    futures.clear()
    told.append(bool((shmgemm.gemm_async(a, a).result() == 600).all()))
    sys.exit(0 if told == [True, False, True, *["closed"] * 4, True] else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert all((future.result() == 600).all() for future in futures)
"""


def test_fork_with_futures_in_flight() -> None:
    scripts.output(FORK)


# --- errors -----------------------------------------------------------------------------------


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Any]:
    with shmgemm.open(region=16 << 20, strict=request.param) as session:
        yield session


strict = pytest.mark.parametrize("own", [True], indirect=True)
lenient = pytest.mark.parametrize("own", [False], indirect=True)


@lenient
def test_the_future_of_a_closed_session(own: Any) -> None:
    a = torch.ones(9, 9)
    futures = [shmgemm.gemm_async(a, a) for _ in range(3)]
    own.close()
    for future in futures:
        with pytest.raises(shmgemm.SessionClosed):
            future.result()
        assert isinstance(future.exception(), shmgemm.SessionClosed)
        assert repr(future) == "<shmgemm.Future failed>"


def lose(session: Any, count: int, a: Any) -> list[Any]:
    """Futures of an engine that was killed while it could not answer."""
    session.core.noop()  # an engine runs
    pid = session.core.engine_pid
    assert pid > 0  # 0 would be this process
    os.kill(pid, signal.SIGSTOP)
    futures = [shmgemm.gemm_async(a, a) for _ in range(count)]
    assert not futures[0].done()
    os.kill(pid, signal.SIGKILL)
    return futures


@strict
@pytest.mark.parametrize("make", [torch.ones, lambda *s: np.ones(s, "float32")])
def test_a_lost_engine_fails_each(own: Any, make: Callable[..., Any]) -> None:
    a = make(30, 30)
    shmgemm.gemm(a, a)
    for future in lose(own, 5, a):
        with pytest.raises(shmgemm.DeviceLost):
            future.result()
        assert isinstance(future.exception(), shmgemm.DeviceLost)
    assert (shmgemm.gemm_async(a, a).result() == 30).all()
    assert own.stats()["engine_starts"] == 2


@lenient
def test_a_lost_engine_falls_back(own: Any) -> None:
    a = torch.ones(30, 30, requires_grad=True)
    with shmgemm.profile() as prof:
        futures = lose(own, 5, a)
        with pytest.warns(shmgemm.FallbackWarning, match=r"gemm 30x30 @ 30x30 .*DeviceLost"):
            results = [future.result() for future in futures]
    assert all((result == 30).all() for result in results)
    assert prof.coverage.fallback_macs == 5 * 30**3
    with pytest.warns(shmgemm.FallbackWarning):
        numbers = [future.result() for future in lose(own, 2, np.ones((30, 30), "float32"))]
    assert all((one == 30).all() for one in numbers)
    results[0].sum().backward()
    assert (a.grad == 60).all()


def fill() -> list[torch.Tensor]:
    blocks, size = [], 16 << 20
    while size:
        try:
            blocks.append(shmgemm.empty(size, dtype=torch.int8))
        except shmgemm.RegionFull:
            size //= 2
    return blocks


@lenient
def test_no_room_falls_back(own: Any) -> None:
    a, x = torch.ones(3, 3, requires_grad=True), np.ones((3, 3), "float32")
    _blocks = fill()
    for call in (
        lambda: [shmgemm.gemm_async(a, a).result()],
        lambda: [shmgemm.linear_async(a, a, torch.zeros(3)).result()],
        lambda: shmgemm.batch([(a, a), (a, a)]),
        lambda: [shmgemm.gemm_async(x, x).result()],
        lambda: shmgemm.batch([(x, x)] * 2),
    ):
        with pytest.warns(shmgemm.FallbackWarning, match="RegionFull"):
            results = call()
        for result in results:
            assert getattr(result, "requires_grad", True)
            assert (result == 3).all()


@strict
def test_no_room_is_raised_at_the_call(own: Any) -> None:
    a, x = torch.ones(3, 3), np.ones((3, 3), "float32")
    _blocks = fill()
    for call in (
        lambda: shmgemm.gemm_async(a, a),
        lambda: shmgemm.linear_async(a, a),
        lambda: shmgemm.batch([(a, a)]),
        lambda: shmgemm.gemm_async(x, x),
        lambda: shmgemm.batch([(x, x)]),
    ):
        with pytest.raises(shmgemm.RegionFull):
            call()


WRONG = [((2, 3), (4, 5)), ((3,), (3, 2)), ((2, 2, 3), (3, 3, 5))]


@pytest.mark.parametrize(("a", "b"), WRONG)
def test_wrong_shapes_raise_at_the_call(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = torch.ones(a), torch.ones(b)
    with pytest.raises(shmgemm.Unsupported):
        shmgemm.gemm_async(x, y)
    with pytest.raises(shmgemm.Unsupported):
        shmgemm.gemm_async(x.numpy(), y.numpy())
    with pytest.raises(shmgemm.Unsupported):
        shmgemm.linear_async(x, y, torch.ones(9))


@pytest.mark.parametrize("number", [2, 256, -1])
def test_a_device_that_is_not_there(number: int) -> None:
    a = torch.ones(2, 2)
    for x in (a, a.numpy()):
        with pytest.raises(shmgemm.Unsupported, match="device"):
            shmgemm.gemm_async(x, x, sim_device=number)
        with pytest.raises(shmgemm.Unsupported, match="device"):
            shmgemm.batch([(x, x)], sim_device=number)


# --- autograd and torch's transforms ----------------------------------------------------------


@pytest.mark.parametrize("shapes", [((3, 4), (4, 2)), ((2, 3, 4), (4, 2)), ((5, 3, 4), (1, 4, 2))])
def test_gradients_are_torchs(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    def gradients(product: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        a, b = (torch.linspace(-1, 1, torch.Size(s).numel()).reshape(s) for s in shapes)
        a.requires_grad_()
        b.requires_grad_()
        result = product(a, b)
        first = torch.autograd.grad(result.square().sum(), (a, b), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].sum(), (a, b))
        return [result, *first, *second]

    wanted = gradients(torch.matmul)
    for product in (
        lambda a, b: shmgemm.gemm_async(a, b).result(),
        lambda a, b: shmgemm.batch([(a, b), (b.mT, a.mT)])[0],
    ):
        torch.testing.assert_close(gradients(product), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_gradients_of_linear(shape: tuple[int, ...]) -> None:
    def gradients(product: Callable[..., torch.Tensor]) -> Any:
        x = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).requires_grad_()
        w, bias = torch.ones(5, 4, requires_grad=True), torch.ones(5, requires_grad=True)
        first = torch.autograd.grad(
            product(x, w, bias).square().sum(), (x, w, bias), create_graph=1
        )
        return *first, *torch.autograd.grad(first[0].square().sum(), (x, w))

    ours = gradients(lambda *args: shmgemm.linear_async(*args).result())
    wanted = gradients(torch.nn.functional.linear)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_the_mode_at_the_call_counts() -> None:
    a = torch.ones(3, 3, requires_grad=True)
    future = shmgemm.gemm_async(a, a)
    with torch.no_grad():
        assert future.result().requires_grad
        assert not shmgemm.batch([(a, a)])[0].requires_grad
        unrecorded = shmgemm.gemm_async(a, a)
    assert not unrecorded.result().requires_grad


def test_transforms() -> None:
    a, b = torch.randn(5, 3, 4), torch.randn(4, 2)

    def product(x: torch.Tensor) -> torch.Tensor:
        return shmgemm.gemm_async(x, b).result()

    torch.testing.assert_close(torch.vmap(product)(a), a @ b, rtol=1e-4, atol=1e-4)
    batched = torch.vmap(lambda x: shmgemm.batch([(x, b)])[0])(a)
    torch.testing.assert_close(batched, a @ b, rtol=1e-4, atol=1e-4)
    _, tangent = torch.func.jvp(product, (a[0],), (a[1],))
    torch.testing.assert_close(tangent, a[1] @ b, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(a).dtype is torch.bfloat16
        assert shmgemm.batch([(a, b)])[0].dtype is torch.bfloat16


def test_compiled_calls_give_the_op() -> None:
    b = torch.randn(4, 2)
    compiled = torch.compile(lambda x: shmgemm.gemm_async(x, b).result() + 1, backend="eager")
    x = torch.randn(3, 4)
    torch.testing.assert_close(compiled(x), x @ b + 1, rtol=1e-4, atol=1e-4)


def test_fake_tensors() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        a = torch.ones(3, 3)
        assert shmgemm.gemm_async(a, a).result().shape == (3, 3)
