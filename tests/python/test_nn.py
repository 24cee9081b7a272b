"""DeviceLinear is nn.Linear to everyone but the device, and never multiplies by a stale weight."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm import _tensors  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
Records = Callable[[], list[Any]]


def check(layer: nn.Linear, x: torch.Tensor | None = None) -> None:
    """The layer computes with the weight it has now."""
    x = torch.randn(3, layer.in_features).to(layer.weight.dtype) if x is None else x
    ours = layer(x).double()
    wanted = F.linear(
        x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double()
    )
    step = torch.finfo(layer.weight.dtype).eps
    torch.testing.assert_close(ours, wanted, rtol=step, atol=1e-5)


def test_same_initialisation_and_state_dict() -> None:
    torch.manual_seed(0)
    ours = shmgemm.DeviceLinear(7, 5)
    torch.manual_seed(0)
    theirs = nn.Linear(7, 5)
    assert list(ours.state_dict()) == ["weight", "bias"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    assert _tensors.in_region(ours.weight)


@pytest.mark.parametrize("assign", [False, True])
def test_state_dicts_go_both_ways(assign: bool) -> None:
    ours, theirs = shmgemm.DeviceLinear(7, 5), nn.Linear(7, 5)
    ours.load_state_dict(theirs.state_dict(), assign=assign)
    check(ours)
    assert torch.equal(ours.weight, theirs.weight)
    with torch.no_grad():
        ours.weight.add_(1)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (2, 1, 3, 7), (0, 7), (2, 0, 7)])
@pytest.mark.parametrize("bias", [False, True])
def test_any_leading_dimensions(shape: tuple[int, ...], bias: bool) -> None:
    layer = shmgemm.DeviceLinear(7, 5, bias=bias)
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_every_change_of_the_weight_is_seen() -> None:
    layer = shmgemm.DeviceLinear(7, 5)
    check(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    check(layer)
    layer.weight.data = torch.randn(5, 7)
    check(layer)
    layer.weight.data[0] = 9
    check(layer)
    layer.weight = nn.Parameter(torch.randn(5, 7))
    check(layer)
    layer.load_state_dict(nn.Linear(7, 5).state_dict())
    check(layer)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(2, 7)).square().sum().backward()
        optimizer.step()
        check(layer)


def test_from_linear_shares_the_parameters() -> None:
    linear = nn.Linear(7, 5).eval()
    layer = shmgemm.DeviceLinear.from_linear(linear, sim_device=1)
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert (layer.training, layer.sim_device) == (False, 1)
    check(layer)
    assert shmgemm.DeviceLinear.from_linear(nn.Linear(7, 5, bias=False)).bias is None
    with pytest.raises(shmgemm.Unsupported, match="got Conv2d; expected an"):
        shmgemm.DeviceLinear.from_linear(nn.Conv2d(1, 1, 1))


def test_sim_device(records: Records) -> None:
    layer = shmgemm.DeviceLinear(7, 5, sim_device=1)
    layer(torch.randn(2, 7))
    assert [record.device for record in records()] == [1]
    assert "sim_device=1" in repr(layer)
    assert repr(layer).startswith("DeviceLinear(in_features=7, out_features=5, bias=True")
    with pytest.raises(shmgemm.Unsupported, match="sim_device -1"):
        shmgemm.DeviceLinear(7, 5, sim_device=-1)


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float"])
def test_casts_stay_in_the_region(cast: str) -> None:
    layer = getattr(shmgemm.DeviceLinear(7, 5), cast)()
    assert _tensors.in_region(layer.weight)
    check(layer)


def test_double_says_what_to_do() -> None:
    layer = shmgemm.DeviceLinear(7, 5).double()
    with pytest.raises(shmgemm.Unsupported, match=r"float64.*\.float\(\)"):
        layer(torch.randn(2, 7).double())


def test_deepcopy_pickle_and_save() -> None:
    layer = shmgemm.DeviceLinear(7, 5, sim_device=1)
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    copies = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(stream, weights_only=False),
    ]
    for other in copies:
        assert type(other) is shmgemm.DeviceLinear
        assert other.sim_device == 1
        assert torch.equal(other.weight, layer.weight)
        assert other.weight.data_ptr() != layer.weight.data_ptr()
        assert _tensors.in_region(other.weight)
        check(other)


def test_parametrised_weight() -> None:
    layer = nn.utils.parametrizations.weight_norm(shmgemm.DeviceLinear(7, 5))
    x = torch.randn(2, 7)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_without_room_a_layer_falls_back(device: Any) -> None:
    with shmgemm.open(region=4 << 20):
        kept = shmgemm.empty(380_000)
        layer = shmgemm.DeviceLinear(500, 500)
        assert not _tensors.in_region(layer.weight)
        with pytest.warns(shmgemm.FallbackWarning, match="RegionFull"):
            check(layer)
        del kept
        check(layer)


def test_a_layer_of_another_session_is_staged(device: Any) -> None:
    with shmgemm.open(region=4 << 20):
        layer = shmgemm.DeviceLinear(7, 5)
    before = device.stats()["bytes_copied"]
    check(layer)
    assert device.stats()["bytes_copied"] > before


def test_training_matches_torch() -> None:
    def train(linear: Callable[[int, int], nn.Module]) -> list[float]:
        torch.manual_seed(3)
        model = nn.Sequential(linear(8, 32), nn.Tanh(), linear(32, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x = torch.randn(64, 8)
        y = x.sin().sum(1, keepdim=True)
        losses = []
        for _ in range(40):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    ours, theirs = train(shmgemm.DeviceLinear), train(nn.Linear)
    assert theirs[-1] < theirs[0] / 2
    assert ours == pytest.approx(theirs, rel=1e-3)
