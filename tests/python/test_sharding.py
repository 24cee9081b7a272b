"""shard_linear_: one linear layer over two devices, its values, gradients and simulated time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import shmgemm  # noqa: E402
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
