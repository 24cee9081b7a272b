"""offload_(pipeline=True): the values of a blocking model, and devices that overlap."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm._pending import PendingTensor  # noqa: E402
from shmgemm.errors import Unsupported  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
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


class Uses(nn.Module):
    def __init__(self, use: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.use = nn.Linear(8, 8), use

    def forward(self, x: Tensor) -> Any:
        return self.use(self.layer(x))


@pytest.mark.parametrize(
    "use",
    [
        lambda y: y.add_(1),
        lambda y: y[1, 2],
        lambda y: torch.from_numpy(y.numpy().copy()),
        lambda y: torch.tensor(y.tolist()),
        lambda y: torch.tensor(y.sum().item()),
        lambda y: pickle.loads(pickle.dumps(y)),
        copy.deepcopy,
    ],
    ids=["in place", "index", "numpy", "tolist", "item", "pickle", "deepcopy"],
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
