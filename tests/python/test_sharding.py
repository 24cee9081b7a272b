"""shard_linear_: one linear layer over two devices, its values, gradients and simulated time."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm import _core, _fallback  # noqa: E402
from shmgemm.errors import Unsupported  # noqa: E402
from shmgemm.sharding import shard_linear_  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
Records = Callable[[], list[Any]]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_values(dim: int, dtype: Any, bias: bool, shape: tuple[int, ...], records: Records) -> None:
    layer = nn.Linear(8, 12, bias=bias).to(dtype)
    x = torch.randn(*shape[:-1], 16).to(dtype)[..., ::2]
    added = None if layer.bias is None else layer.bias.double()
    wanted = F.linear(x.double(), layer.weight.double(), added)
    assert shard_linear_(layer, 2, dim) == [""]
    got = layer(x)
    assert got.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)
    assert {record.device for record in records()} == {0, 1}


@pytest.mark.parametrize("dim", [0, 1])
def test_gradients(dim: int) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(5, 8, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    wanted = torch.autograd.grad(layer(x).square().sum(), inputs)
    shard_linear_(layer, 2, dim)
    got = torch.autograd.grad(layer(x).square().sum(), inputs)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*double precision floating point")
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (8,)])
def test_gradients_of_gradients(dim: int, shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(shape, requires_grad=True)
    shard_linear_(layer, 2, dim)

    def product(x: Any, weight: Any, bias: Any) -> Any:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    operands = (x, layer.weight, layer.bias)
    # The product is linear in each operand, so a large step has no truncation error.
    assert torch.autograd.gradcheck(product, operands, eps=0.5, atol=1e-3, rtol=1e-3)
    assert torch.autograd.gradgradcheck(product, operands, eps=0.5, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dim", [0, 1])
def test_a_gradient_penalty_as_in_float64(dim: int) -> None:
    """First order, second order, and a gradient that is one number expanded."""
    layer, x = nn.Linear(8, 12), torch.randn(5, 8, requires_grad=True)
    double, y = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    shard_linear_(layer, 2, dim)
    for model, given in ((layer, x), (double, y)):
        (slope,) = torch.autograd.grad(model(given).tanh().sum(), given, create_graph=True)
        (slope.square().sum() + model(given).sum()).backward()
    assert x.grad is not None and y.grad is not None
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-4, atol=1e-4)
    for ours, wanted in zip(layer.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), wanted.grad, rtol=1e-4, atol=1e-4)


def test_two_devices_halve_the_time(records: Records) -> None:
    x, cycles = torch.randn(512, 64), {}
    for count in (1, 2):
        layer = nn.Linear(64, 4096)
        shard_linear_(layer, count)
        with torch.no_grad():
            layer(x)
        ran = records()
        assert len({record.start_cycles for record in ran}) == 1
        cycles[count] = max(r.end_cycles for r in ran) - min(r.start_cycles for r in ran)
    assert cycles[1] >= 1.8 * cycles[2]


def test_the_reduction_waits_for_every_partial(records: Records) -> None:
    layer = nn.Linear(64, 32)
    shard_linear_(layer, 2, 1)
    with torch.no_grad():
        layer(torch.randn(16, 64))
    ran = records()
    sums = [record for record in ran if record.name == "linear.reduce"]
    partials = [record for record in ran if record.name == "linear"]
    assert (len(sums), len(partials)) == (2, 2)
    assert min(r.start_cycles for r in sums) >= max(r.end_cycles for r in partials)


def test_restored_and_copied() -> None:
    layer, x = nn.Linear(8, 12), torch.randn(3, 8)
    wanted, state = layer(x), copy.deepcopy(layer.state_dict())
    shard_linear_(layer, 2)
    layer.load_state_dict(state)
    torch.testing.assert_close(copy.deepcopy(layer)(x), wanted)
    assert shmgemm.restore_(layer) == 1
    assert type(layer) is nn.Linear
    assert torch.equal(layer(x), wanted)


@pytest.mark.parametrize(
    ("devices", "dim", "said"),
    [(2, 0, "multiple of 2"), (3, 0, "device 2"), (1, 2, "dim 2"), ([], 0, "one at least")],
)
def test_refused_the_model_unchanged(devices: Any, dim: int, said: str) -> None:
    model = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 3))
    with pytest.raises(Unsupported, match=said):
        shard_linear_(model, devices, dim)
    assert [type(layer) for layer in model] == [nn.Linear] * 2


def test_no_linear_layer() -> None:
    with pytest.raises(Unsupported, match="no linear layer"):
        shard_linear_(nn.ReLU(), 2)


# --- with the rest of the package -----------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1])
def test_in_a_stream_it_starts_after_what_was_sent_there(dim: int, records: Records) -> None:
    layer, x = nn.Linear(64, 32), torch.randn(16, 64)
    wanted = layer(x)
    shard_linear_(layer, 2, dim)
    stream, a = shmgemm.Stream(), torch.randn(64, 64)
    with torch.no_grad(), shmgemm.stream(stream):
        sent = shmgemm.gemm_async(a, a)
        got = layer(x)
        assert shmgemm.current_stream().number == stream.number
        after = shmgemm.gemm_async(a, a)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(sent.result(), after.result())
    first, *ran, last = sorted(records(), key=lambda record: record.start_cycles)
    assert (first.name, last.name) == ("gemm", "gemm")
    assert {record.device for record in ran} == {0, 1}
    assert min(record.start_cycles for record in ran) >= first.end_cycles
    assert last.start_cycles >= max(record.end_cycles for record in ran)


@pytest.mark.parametrize("shard_first", [False, True])
def test_thresholds_keep_calls_back_and_count_them(shard_first: bool) -> None:
    model, x = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 4)), torch.randn(3, 8)
    wanted = model(x)
    if shard_first:
        shard_linear_(model, 2)
    shmgemm.offload_(model, min_macs=3 * 8 * 12)
    if not shard_first:
        shard_linear_(model, 2)
    with torch.no_grad(), shmgemm.profile() as prof:
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    coverage = prof.coverage
    assert {(op.module, op.device) for op in prof.records} == {("0", 0), ("0", 1)}
    assert (coverage.kept_back_ops, coverage.kept_back_macs) == (1, 3 * 12 * 4)
    assert coverage.linear_macs_simulated == coverage.matrix_macs_simulated == 3 * 8 * 12
    assert coverage.linear_macs == coverage.matrix_macs == 3 * (8 * 12 + 12 * 4)


@pytest.mark.parametrize("dim", [0, 1])
def test_among_pipelined_layers(dim: int) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 12), nn.Linear(12, 4)), torch.randn(5, 8)
    wanted = model(x)
    shmgemm.offload_(model, pipeline=True)
    shard_linear_(model[1], 2, dim)
    with torch.no_grad():
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    assert shmgemm.restore_(model) == 3
    assert torch.equal(model(x), wanted)


def saved(layer: nn.Module) -> Any:
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), saved],
    ids=["deepcopy", "pickle", "save"],
)
def test_copies_are_sharded_layers_of_their_own(
    copied: Callable[[Any], Any], dim: int, records: Records
) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(3, 8)
    wanted, state = layer(x), copy.deepcopy(layer.state_dict())
    shard_linear_(layer, [1, 0], dim)
    other = copied(layer)
    with torch.no_grad():
        layer.weight.zero_()
        records()
        torch.testing.assert_close(other(x), wanted, rtol=1e-5, atol=1e-5)
    assert {record.device for record in records()} == {0, 1}
    assert "sim_devices=(1, 0), shard_dim=" + str(dim) in repr(other)
    assert list(other.state_dict()) == list(state)
    assert all(torch.equal(other.state_dict()[name], state[name]) for name in state)
    assert shmgemm.restore_(other) == 1
    assert type(other) is nn.Linear
    assert torch.equal(other(x), wanted)


# --- torch's transforms ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1])
def test_compiled_it_stays_on_all_devices(dim: int, records: Records, recwarn: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 12))
    x, parameters = torch.randn(5, 8), list(model.parameters())
    wanted = model(x)
    gradients = torch.autograd.grad(wanted.square().sum(), parameters)
    shard_linear_(model, 2, dim)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    got = compiled(x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    ran = {(record.scope, record.device) for record in records()}
    assert ran == {(name, device) for name in ("0", "2") for device in (0, 1)}
    ours = torch.autograd.grad(got.square().sum(), parameters)
    torch.testing.assert_close(ours, gradients, rtol=1e-3, atol=1e-3)
    assert not [one for one in recwarn if "Dynamo" in str(one.message)]


@pytest.mark.parametrize("dim", [0, 1])
def test_autocast(dim: int, records: Records) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(5, 8, requires_grad=True)
    plain = copy.deepcopy(layer)
    shard_linear_(layer, 2, dim)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = plain(x)
        got = layer(x)
        for one in (got, layer(x.bfloat16())):
            assert one.dtype is torch.bfloat16
            torch.testing.assert_close(one, wanted, rtol=2e-2, atol=2e-2)
    assert {record.device for record in records()} == {0, 1}
    got.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype is torch.float32


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "grad": lambda f: torch.func.grad(lambda x: f(x).square().sum()),
    "vmap": torch.vmap,
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x.cos(),))[1],
    "jacrev": torch.func.jacrev,
    "meta": lambda f: lambda x: torch.zeros_like(f.to("meta")(x.to("meta")), device="cpu"),
}


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_other_transforms(transform: str, dim: int) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(3, 8)
    wanted = TRANSFORMS[transform](copy.deepcopy(layer))(x)
    shard_linear_(layer, 2, dim)
    torch.testing.assert_close(TRANSFORMS[transform](layer)(x), wanted, rtol=1e-4, atol=1e-4)


# --- engines that die -----------------------------------------------------------------------------


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Any]:
    with shmgemm.open(region=16 << 20, devices=2, **request.param) as session:
        yield session


def opened(*strict: bool) -> Any:
    """With one process for both devices, and with one for each."""
    options = [{"strict": s, "processes": p} for s in strict for p in (1, 2)]
    names = [f"{o['processes']} processes, strict={o['strict']}" for o in options]
    return pytest.mark.parametrize("own", options, indirect=True, ids=names)


def kill_soon(session: Any, number: int) -> None:
    """An engine that answers no more, and is killed while a product waits for it."""
    session.core.flush()
    pid = session.engine_pids[number]
    assert pid > 0
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()


def held_bytes(session: Any) -> int:
    gc.collect()
    shmgemm.synchronize()
    return int(session.stats()["heap_used_bytes"])


@opened(False)
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize("in_stream", [False, True])
def test_a_lost_engine_falls_back(own: Any, dim: int, which: int, in_stream: bool) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(3, 8)
    wanted = layer(x)
    shard_linear_(layer, 2, dim)
    stream = shmgemm.Stream() if in_stream else shmgemm.current_stream()
    with torch.no_grad(), shmgemm.stream(stream):
        layer(x)
        before = held_bytes(own)
        kill_soon(own, which)
        fallen = _fallback.counters()
        warned = pytest.warns(shmgemm.FallbackWarning, match="linear 3x8 @ 8x12 .*DeviceLost")
        with shmgemm.profile() as prof, warned:
            got = layer(x)
        assert shmgemm.current_stream().number == stream.number
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
        assert _fallback.counters().fallen_macs - fallen.fallen_macs == 3 * 8 * 12
        simulated = prof.coverage.matrix_macs_simulated
        assert prof.coverage.matrix_macs == simulated + 3 * 8 * 12, "counted once"
        del got
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
        assert held_bytes(own) == before
    assert own.stats()["engine_starts"] == len(own.engine_pids) + 1


@opened(False)
@pytest.mark.parametrize("dim", [0, 1])
def test_training_goes_on_by_fallback(own: Any, dim: int) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(3, 8, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    wanted = torch.autograd.grad(layer(x).square().sum(), inputs)
    shard_linear_(layer, 2, dim)
    loss = layer(x).square().sum()
    kill_soon(own, -1)
    with pytest.warns(shmgemm.FallbackWarning, match=r"linear\.grad_.*DeviceLost"):
        got = torch.autograd.grad(loss, inputs)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@opened(True)
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("which", [0, -1])
def test_a_lost_engine_is_an_error_where_it_is_strict(own: Any, dim: int, which: int) -> None:
    layer, x = nn.Linear(8, 12), torch.randn(3, 8)
    wanted = layer(x)
    shard_linear_(layer, 2, dim)
    with torch.no_grad():
        before = held_bytes(own)
        kill_soon(own, which)
        with pytest.raises(shmgemm.DeviceLost):
            layer(x)
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
        assert held_bytes(own) == before


class Fails:
    """A product whose device failed at once."""

    def result(self) -> None:
        raise shmgemm.DeviceLost("gone")


class FirstFails:
    """A session whose first product fails while those behind it are under way."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def gemm_async(self, call: Any) -> Any:
        self._sent += 1
        future = self._core.gemm_async(call)
        return Fails() if self._sent == 1 else future


@torch.no_grad()
@pytest.mark.parametrize("own", [{"strict": True}], indirect=True)
def test_memory_of_what_is_under_way_is_kept(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one device's part has failed, the others' write on into theirs."""
    layer, x = nn.Linear(256, 64), shmgemm.empty(128, 256).normal_()
    shard_linear_(layer, 2, 1)
    before = held_bytes(own)
    with monkeypatch.context() as patched:
        patched.setattr(_core, "current_session", lambda: FirstFails(own.core))
        os.kill(own.engine_pids[0], signal.SIGSTOP)
        try:
            with pytest.raises(shmgemm.DeviceLost, match="gone"):
                layer(x)
            gc.collect()
            kept = own.stats()["heap_used_bytes"] - before
        finally:
            os.kill(own.engine_pids[0], signal.SIGCONT)
    assert kept >= 3 * 4 * 128 * 64, "two partial results and their sum"
    assert held_bytes(own) == before
