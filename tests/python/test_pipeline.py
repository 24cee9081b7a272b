"""offload_(pipeline=True): the values of a blocking model, and devices that overlap.

test_ops_python.py runs this file again without the C++ extension.
"""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import shmgemm.ops  # noqa: E402
from shmgemm import _fallback  # noqa: E402
from shmgemm._pending import PendingTensor  # noqa: E402
from shmgemm.errors import Unsupported  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
needs_extension = pytest.mark.skipif(
    shmgemm.ops.IMPLEMENTATION == "python", reason="a layer behind another waits for it"
)
Records = Callable[[], list[Any]]


class Branches(nn.Module):
    """Two branches, views between layers, and one chained to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> dict[str, Any]:
        left, right = self.left(x), self.right(x)
        chained = self.last(left.view(2, 3, 8).transpose(0, 1))
        return {"sum": chained.sum() + right[1:, ::2].sum(), "parts": (chained, *right.chunk(2, 1))}


def leaves(output: dict[str, Any]) -> list[Tensor]:
    return [output["sum"], *output["parts"]]


@pytest.mark.parametrize("placement", [None, "round_robin", lambda _, name: int(name == "last")])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_same_values_and_nothing_pending_leaves(placement: Any, mode: Any) -> None:
    model, x = Branches(), torch.randn(6, 8)
    with mode():
        wanted = leaves(model(x))
        shmgemm.offload_(model, pipeline=True, placement=placement)
        got = leaves(model(x))
    assert not any(isinstance(tensor, PendingTensor) for tensor in got)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    shmgemm.restore_(model)
    with mode():
        torch.testing.assert_close(leaves(model(x)), wanted)


def test_devices_overlap_and_the_chained_one_waits(records: Records) -> None:
    model = Branches()
    shmgemm.offload_(model, pipeline=True, placement=lambda _, name: int(name != "left"))
    with torch.no_grad():
        model(torch.randn(6, 8))
    ran = {record.scope: record for record in records()}
    assert ran["left"].device != ran["right"].device
    assert ran["right"].start_cycles < ran["left"].end_cycles
    assert ran["last"].start_cycles >= ran["left"].end_cycles


def two_branches() -> nn.ModuleList:
    """Of two layers each, on a device of its own each."""
    model = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(2))
    shmgemm.offload_(model, pipeline=True, placement=lambda _, name: int(name[0]))
    return model


@needs_extension
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("pause_s", [0.0, 0.1])
def test_branches_of_several_layers_overlap_however_slow_the_host(
    processes: int, pause_s: float
) -> None:
    with shmgemm.open(region=8 << 20, devices=2, processes=processes):
        model, x = two_branches(), torch.randn(6, 8)
        with torch.no_grad(), shmgemm.profile() as prof:
            for first, second in model:
                y = first(x)
                time.sleep(pause_s)
                second(y)
                del y
                time.sleep(pause_s)
            shmgemm.synchronize()
    ran = {record.module: record for record in prof.records}
    assert ran["0.0"].start_cycles == ran["1.0"].start_cycles
    assert ran["0.1"].start_cycles == ran["1.1"].start_cycles == ran["0.0"].end_cycles


class Uses(nn.Module):
    def __init__(self, use: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.use = nn.Linear(8, 8), use

    def forward(self, x: Tensor) -> Any:
        return self.use(self.layer(x))


def saved(y: Tensor) -> Any:
    stream = io.BytesIO()
    torch.save(y, stream)
    stream.seek(0)
    return torch.load(stream)


def gradient_through(y: Tensor) -> Tensor | None:
    """What came out of a model without autograd goes on in one with it."""
    with torch.enable_grad():
        weight = torch.ones(8, requires_grad=True)
        (y * weight).square().sum().backward()
    return weight.grad


@pytest.mark.parametrize(
    "use",
    [
        lambda y: y.add_(1),
        lambda y: (y.unsqueeze_(0), y + torch.ones(y.shape))[1],
        lambda y: y.mT.squeeze_().t_(),
        lambda y: y[1, 2],
        lambda y: torch.from_numpy(y.numpy().copy()),
        lambda y: torch.tensor(y.tolist()),
        lambda y: torch.tensor(y.sum().item()),
        lambda y: pickle.loads(pickle.dumps(y)),
        copy.deepcopy,
        copy.copy,
        saved,
        torch.from_dlpack,
        lambda y: torch.from_numpy(np.from_dlpack(y).copy()),
        lambda y: torch.tensor(float(f"{y[1, 2]:.6f}")),
        lambda y: torch.tensor(y.untyped_storage().nbytes()),
        lambda y: y.share_memory_(),
        gradient_through,
        lambda y: torch.vmap(lambda row: row * 2)(y),
    ],
    ids=[
        "in place",
        "unsqueeze_",
        "t_",
        "index",
        "numpy",
        "tolist",
        "item",
        "pickle",
        "deepcopy",
        "copy",
        "save",
        "dlpack",
        "numpy's dlpack",
        "format",
        "storage",
        "share_memory_",
        "gradient",
        "vmap",
    ],
)
def test_what_needs_values_waits_for_them(use: Callable[[Tensor], Any]) -> None:
    model, x = Uses(use), torch.randn(6, 8)
    with torch.no_grad():
        wanted = model(x)
        shmgemm.offload_(model, pipeline=True)
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)


def test_an_unknown_placement() -> None:
    with pytest.raises(Unsupported, match="round_robin"):
        shmgemm.offload_(Branches(), pipeline=True, placement="elsewhere")  # type: ignore[arg-type]


class Turns(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mT if x.dim() > 1 else x


@pytest.mark.parametrize("ndim", [1, 3, 4])
def test_any_layout_between_layers(ndim: int) -> None:
    """What one command cannot describe is copied, and waited for where it is pending."""
    model = nn.Sequential(nn.Linear(8, 8), Turns(), nn.Linear(8, 8), nn.Linear(8, 8))
    x = torch.randn(*(2, 3, 8, 8)[-ndim:-1], 16)[..., ::2]
    with torch.no_grad():
        wanted = model(x)
        shmgemm.offload_(model, pipeline=True)
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)


# --- compiled, hooked, and in other modules -------------------------------------------------------


def compiled_part(model: Branches) -> nn.Module:
    model.last = torch.compile(model.last, backend="aot_eager")  # type: ignore[assignment]
    return model


@pytest.mark.filterwarnings("ignore:.*Dynamo does not know")
@pytest.mark.parametrize(
    "compiled",
    [
        lambda model: torch.compile(model, fullgraph=True, backend="aot_eager"),
        lambda model: torch.compile(model, backend="aot_eager", dynamic=True),
        compiled_part,
    ],
    ids=["whole", "dynamic", "a layer that gets what is pending"],
)
def test_compiled(compiled: Callable[[Any], Any], records: Records) -> None:
    model, x = Branches(), torch.randn(6, 8)
    wanted = leaves(model(x))
    gradients = torch.autograd.grad(wanted[0], list(model.parameters()))
    shmgemm.offload_(model, pipeline=True)
    parameters = list(model.parameters())
    run = compiled(model)
    with torch.no_grad():
        torch.testing.assert_close(leaves(run(x)), wanted, rtol=1e-4, atol=1e-4)
    assert sorted(record.scope for record in records()) == ["last", "left", "right"]
    ours = torch.autograd.grad(leaves(run(x))[0], parameters)
    torch.testing.assert_close(ours, gradients, rtol=1e-4, atol=1e-4)


def test_hooks_see_tensors_and_change_them() -> None:
    model, x = Branches(), torch.randn(6, 8)
    seen: list[Any] = []

    def before(_module: nn.Module, inputs: Any) -> Any:
        seen.append(inputs[0].numpy().copy())
        return (inputs[0] + 1,)

    def after(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        seen.append(output.mean().item())
        return output.mul_(2)

    model.last.register_forward_pre_hook(before)
    model.left.register_forward_hook(after)
    model.register_forward_hook(lambda *given: seen.append(leaves(given[2])[0].clone()))
    with torch.no_grad():
        wanted, told = leaves(model(x)), list(seen)
        shmgemm.offload_(model, pipeline=True)
        seen.clear()
        torch.testing.assert_close(leaves(model(x)), wanted, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(seen, told, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_attention(batch_first: bool, need_weights: bool, records: Records) -> None:
    """Behind a layer and before one, so that what it gets and what it gives is pending."""
    model = nn.ModuleList(
        [nn.Linear(16, 16), nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()]
    )
    x = torch.randn(3, 5, 16)

    def run() -> Any:
        y = model[0](x)
        return [one for one in model[1](y, y, y, need_weights=need_weights) if one is not None]

    with torch.no_grad():
        wanted = run()
        shmgemm.offload_(model, pipeline=True)
        torch.testing.assert_close(run(), wanted, rtol=1e-4, atol=1e-5)
    assert sorted(record.scope for record in records()) == ["0", "1", "1"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("offloaded", ["all", "outside", "inside"])
@pytest.mark.parametrize("padded", [False, True])
def test_encoder(offloaded: str, padded: bool, records: Records) -> None:
    """Offloaded it leaves torch's fused path; left alone it takes it, with a pending input."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=padded)
    model = nn.ModuleDict({"before": nn.Linear(16, 16), "encoder": encoder}).eval()
    x = torch.randn(2, 5, 16)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if padded else None
    kept = slice(None) if padding is None else ~padding

    def run() -> Tensor:
        encoded: Tensor = encoder(model["before"](x), src_key_padding_mask=padding)
        return encoded[kept]

    inside = {"all": (False, True), "outside": (False,), "inside": (True,)}[offloaded]
    with torch.no_grad():
        wanted = run()
        shmgemm.offload_(model, lambda _, name: name.startswith("encoder") in inside, pipeline=True)
        torch.testing.assert_close(run(), wanted, rtol=1e-4, atol=1e-5)
    assert len(records()) == {"all": 9, "outside": 1, "inside": 8}[offloaded]


def test_small_layers_stay_and_get_what_is_pending() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 2), nn.ReLU(), nn.Linear(2, 64))
    x = torch.randn(6, 8)
    with torch.no_grad():
        wanted = model(x)
        shmgemm.offload_(model, pipeline=True, min_macs=6 * 8 * 32)
        with shmgemm.profile() as prof:
            torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    coverage = prof.coverage
    assert coverage.linear_macs == coverage.matrix_macs == 6 * (8 * 32 + 32 * 2 + 2 * 64)
    assert coverage.linear_macs_simulated == coverage.matrix_macs_simulated == 6 * 8 * 32
    assert (coverage.kept_back_ops, coverage.kept_back_macs) == (2, 6 * (32 * 2 + 2 * 64))
    assert coverage.fallback_ops == 0


# --- what a model returns -------------------------------------------------------------------------


class Named(NamedTuple):
    tensor: Tensor


@dataclass
class Opaque:
    """Nothing that torch's pytrees know."""

    tensor: Tensor


def output_of_transformers(tensor: Tensor) -> Any:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    return outputs.BaseModelOutput(last_hidden_state=tensor, hidden_states=(tensor, tensor.mT))


@pytest.mark.parametrize("make", [Named, lambda y: {"a": [y]}, output_of_transformers])
def test_nothing_pending_is_in_what_a_model_returns(make: Callable[[Tensor], Any]) -> None:
    model, x = Uses(make), torch.randn(6, 8)
    with torch.no_grad():
        wanted = torch.utils._pytree.tree_leaves(model(x))
        shmgemm.offload_(model, pipeline=True)
        got = model(x)
    assert type(got) is type(make(x))
    got = torch.utils._pytree.tree_leaves(got)
    assert {type(one) for one in got} == {Tensor}
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "use",
    [
        lambda y: y + 0,
        lambda y: torch.from_numpy(y.numpy()),
        lambda y: torch.from_numpy(np.asarray(y)),
        lambda y: pickle.loads(pickle.dumps(y)),
        copy.deepcopy,
        saved,
    ],
    ids=["op", "numpy", "asarray", "pickle", "deepcopy", "save"],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_leaves_unseen_is_a_tensor_to_all(use: Callable[[Tensor], Tensor], mode: Any) -> None:
    model, x = Uses(Opaque), torch.randn(6, 8)
    wanted = model(x).tensor.detach()
    shmgemm.offload_(model, pipeline=True)
    with mode():
        got = model(x).tensor
    result = use(got)
    assert type(result) is Tensor
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)
    assert str(got) == repr(got) == repr(result)


# --- an engine that dies --------------------------------------------------------------------------


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[Any]:
    with shmgemm.open(region=16 << 20, devices=2, **request.param) as session:
        yield session


def opened(**options: Any) -> Any:
    return pytest.mark.parametrize("own", [options], indirect=True)


def stop_engines(session: Any) -> list[int]:
    """Engines that take commands and answer none."""
    session.core.flush()
    for pid in session.engine_pids:
        assert pid > 0
        os.kill(pid, signal.SIGSTOP)
    return list(session.engine_pids)


def killing_hook(pids: list[int]) -> Callable[..., None]:
    """Kills them once, where the hook runs first."""

    def hook(*_: Any) -> None:
        while pids:
            os.kill(pids.pop(), signal.SIGKILL)

    return hook


def held_bytes(session: Any, *, ended: bool = True) -> int:
    gc.collect()
    if ended:
        shmgemm.synchronize()
    return int(session.stats()["heap_used_bytes"])


class InPlace(nn.Module):
    """Writes into what it got and looks at it again, also by a view that it had before."""

    def forward(self, x: Tensor) -> Tensor:
        row = x[1]
        x.add_(1)
        x[0] = 7
        return torch.cat([x, row[None]])


LOST = {
    "chained": lambda: nn.Linear(8, 8),
    "op": nn.ReLU,
    "view": lambda: nn.Unflatten(1, (2, 4)),
    "nothing": nn.Identity,
    "in place": InPlace,
}


@opened(strict=False)
@pytest.mark.parametrize("behind", LOST)
def test_a_lost_engine_falls_back(behind: str, own: Any) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), LOST[behind]()), torch.randn(6, 8)
    with torch.no_grad():
        wanted = model(x)
        shmgemm.offload_(model, pipeline=True)
        model(x)
        before = held_bytes(own)
        model[0].register_forward_hook(killing_hook(stop_engines(own)))
        with shmgemm.profile() as prof, pytest.warns(shmgemm.FallbackWarning, match="DeviceLost"):
            got = model(x)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
        del got
        assert held_bytes(own) == before
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    layers = 2 if behind == "chained" else 1
    coverage = prof.coverage
    assert (coverage.fallback_ops, coverage.fallback_macs) == (layers, layers * 6 * 8 * 8)
    assert coverage.linear_macs == coverage.matrix_macs == layers * 6 * 8 * 8
    assert coverage.linear_macs_simulated == 0
    assert own.stats()["engine_starts"] == 2


@opened(strict=True)
@pytest.mark.parametrize("behind", LOST)
def test_a_lost_engine_is_an_error_where_it_is_strict(behind: str, own: Any) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), LOST[behind]()), torch.randn(6, 8)
    with torch.no_grad():
        wanted = model(x)
        shmgemm.offload_(model, pipeline=True)
        before = held_bytes(own)
        model[0].register_forward_hook(killing_hook(stop_engines(own)))
        with pytest.raises(shmgemm.DeviceLost):
            model(x)
        torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
        assert held_bytes(own) == before


def chain_over_two_engines(session: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """The second layer's engine lives and reads what the first one's, which dies, has not written.

    The host is then waiting for the first.
    """
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(6, 8)
    wanted = model(x)
    shmgemm.offload_(model, pipeline=True, placement="round_robin")
    session.core.flush()
    pid = session.engine_pids[0]
    os.kill(pid, signal.SIGSTOP)
    kill = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    handle = model[0].register_forward_hook(lambda *_: (handle.remove(), kill.start())[0])
    return model, x, wanted


@torch.no_grad()
@opened(processes=2, strict=False)
def test_what_a_lost_engine_was_to_write_is_not_read(own: Any) -> None:
    model, x, wanted = chain_over_two_engines(own)
    before = held_bytes(own, ended=False)
    fallen, done = _fallback.counters().fallen_ops, own.stats()["ops"]
    with pytest.warns(shmgemm.FallbackWarning, match="DeviceLost"):
        got = model(x)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    assert _fallback.counters().fallen_ops - fallen == 2
    assert own.stats()["ops"] == done, "the other engine did not compute with what is not there"
    del got
    torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    assert held_bytes(own) == before


@torch.no_grad()
@opened(processes=2, strict=True)
def test_what_a_lost_engine_was_to_write_is_an_error_where_it_is_strict(own: Any) -> None:
    model, x, wanted = chain_over_two_engines(own)
    before = held_bytes(own, ended=False)
    with pytest.raises(shmgemm.DeviceLost):
        model(x)
    torch.testing.assert_close(model(x), wanted, rtol=1e-4, atol=1e-4)
    assert held_bytes(own) == before


@needs_extension
@torch.no_grad()
@opened(strict=False, timeout=0.5)
@pytest.mark.filterwarnings("ignore::shmgemm.FallbackWarning")
def test_a_long_chain_is_no_recursion(own: Any) -> None:
    """A layer that is applied again and again to what an engine that hangs will not write."""
    layer, x = nn.Linear(8, 8, bias=False), torch.randn(6, 8)
    nn.init.orthogonal_(layer.weight)
    wanted = x.double() @ torch.linalg.matrix_power(layer.weight.double().mT, 400)
    shmgemm.offload_(layer, pipeline=True)
    layer._forward_hooks.clear()  # which would wait after each
    before = held_bytes(own)
    stop_engines(own)
    y = x
    for _ in range(400):
        y = layer(y)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-3, atol=1e-3)
    del y
    assert held_bytes(own) == before
