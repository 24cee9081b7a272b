"""A script written for an older device GEMM runs after its import line was changed."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import draws  # noqa: E402
import scripts  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm.compat import device_batch_gemm  # noqa: E402
from shmgemm.errors import Unsupported  # noqa: E402

OLDER_SCRIPT = """
import torch
import torch.nn as nn
from device_backend import DeviceGEMM, DeviceLinear, device_gemm

torch.manual_seed(0)
A = torch.randn(4, 8, requires_grad=True)
B = torch.randn(8, 16, requires_grad=True)
for C in (device_gemm(A, B), DeviceGEMM.apply(A, B), DeviceGEMM()(A, B)):
    assert torch.allclose(C, A @ B, atol=1e-5)
C.sum().backward()
assert torch.allclose(A.grad, torch.ones(4, 16) @ B.T, atol=1e-5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = DeviceLinear(8, 32)
        self.fc2 = DeviceLinear(32, 4, bias=False)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.randn(16, 8), torch.randint(0, 4, (16,))
losses = []
for _ in range(10):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0]
print("ops on the device:", __import__("shmgemm").stats()["ops"])
"""


def test_without_torch_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n  import shmgemm.compat\nexcept ImportError as error: print(error)"
    )
    said = scripts.output(script)
    assert said == "shmgemm.compat needs torch, which is not installed: pip install torch"


def test_only_the_import_line_changes() -> None:
    script = OLDER_SCRIPT.replace("device_backend", "shmgemm.compat")
    # 3 products, 2 gradients; 10 steps of 2 forward products and 3 gradients (none for the input)
    assert scripts.output(script, SHMGEMM_STRICT="1") == "ops on the device: 55"


def test_a_batch_has_its_results_in_order() -> None:
    a, b, x = torch.randn(5, 7), torch.randn(7, 3, requires_grad=True), torch.randn(2, 4, 7)
    weight, bias = torch.randn(6, 7), torch.randn(6)
    with shmgemm.open(region=16 << 20, strict=True), shmgemm.profile() as prof:
        products = device_batch_gemm(
            [
                {"type": "GEMM", "A": a, "B": b},
                {"type": "LINEAR", "input": x, "weight": weight, "bias": bias},
                {"type": "LINEAR", "input": x, "weight": weight},
            ]
        )
        expected = [a @ b, x @ weight.T + bias, x @ weight.T]
        for ours, theirs in zip(products, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
        products[0].sum().backward()
        torch.testing.assert_close(b.grad, a.T @ torch.ones(5, 3))
    ops = prof.records[:3]
    assert [op.name for op in ops] == ["gemm", "linear", "linear"]
    assert [op.start_cycles for op in ops[1:]] == [op.end_cycles for op in ops[:-1]]


products = st.tuples(
    draws.operands(st.integers(0, 9), draws.INPUTS, draws.whole_numbers),
    st.sampled_from(["GEMM", "LINEAR", "LINEAR with a bias"]),
)


@settings(max_examples=40)
@given(batch=st.lists(products, max_size=5))
def test_values(session: Any, batch: list[tuple[tuple[Any, Any], str]]) -> None:
    asked: list[dict[str, Any]] = []
    wanted = []
    for (a, b), kind in batch:
        if kind == "GEMM":
            asked.append({"type": "GEMM", "A": a, "B": b})
            wanted.append(a.double() @ b.double())
            continue
        weight, bias = b[(0,) * (b.dim() - 2)].mT, None
        product = a.double() @ weight.double().mT
        if kind != "LINEAR":
            out = torch.int32 if a.dtype is torch.int8 else a.dtype
            bias = torch.arange(weight.shape[0]).to(out)
            product += bias.double()
        asked.append({"type": "LINEAR", "input": a, "weight": weight, "bias": bias})
        wanted.append(product)
    results = device_batch_gemm(asked)
    assert len(results) == len(batch)
    for ours, theirs in zip(results, wanted, strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype))


@pytest.mark.parametrize("count", [1, 32, 100])
def test_n_products_are_n_commands_and_a_flush(session: Any, count: int) -> None:
    """As many submissions would have been as many flushes."""
    before = session.stats()
    results = device_batch_gemm(
        {"type": "LINEAR", "input": torch.ones(i, 3), "weight": torch.ones(2, 3)}
        if i % 2
        else {"type": "GEMM", "A": torch.ones(1, i), "B": torch.ones(i, 4)}
        for i in range(1, count + 1)
    )
    after = session.stats()
    assert after["ops"] - before["ops"] == count
    assert after["commands"] - before["commands"] == count + 1
    assert [float(result.sum()) for result in results] == [
        i * 6 if i % 2 else i * 4 for i in range(1, count + 1)
    ]


def test_gradients_of_all_and_of_some(session: Any) -> None:
    a, b, x = torch.randn(5, 7), torch.randn(7, 3), torch.randn(2, 4, 7)
    weight, bias = torch.randn(6, 7), torch.randn(6)
    trained = [b, weight, bias]
    for tensor in trained:
        tensor.requires_grad_()
    by_device = device_batch_gemm(
        [
            {"type": "GEMM", "A": a, "B": b},
            {"type": "GEMM", "A": a, "B": b.detach()},
            {"type": "LINEAR", "input": x, "weight": weight, "bias": bias},
        ]
    )
    assert [result.requires_grad for result in by_device] == [True, False, True]
    by_torch = [a @ b, a @ b.detach(), x @ weight.T + bias]
    sums = [sum(product.square().sum() for product in side) for side in (by_device, by_torch)]
    for ours, theirs in zip(*(torch.autograd.grad(s, trained) for s in sums), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_where_the_device_fails_each_falls_back() -> None:
    a, x, weight, bias = (torch.ones(size) for size in ((3, 3), (2, 4, 3), (5, 3), (5,)))
    batch = [
        {"type": "GEMM", "A": a, "B": a},
        {"type": "LINEAR", "input": x, "weight": weight, "bias": bias},
        {"type": "LINEAR", "input": x[0, 0], "weight": weight},
    ]
    with shmgemm.open(region=4 << 20, strict=False) as session:
        held = shmgemm.empty(session.stats()["heap_bytes"] // 4 - 1024)
        big = {"type": "GEMM", "A": torch.ones(600, 1), "B": torch.ones(1, 600)}
        with pytest.warns(shmgemm.FallbackWarning):
            results = device_batch_gemm([*batch, big])
        assert session.stats()["ops"] == 0
    del held
    wanted = [a @ a, x @ weight.T + bias, x[0, 0] @ weight.T, torch.ones(600, 600)]
    for ours, theirs in zip(results, wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_an_empty_batch_has_no_results() -> None:
    assert device_batch_gemm([]) == []


A, B = torch.ones(2, 3), torch.ones(3, 2)


@pytest.mark.parametrize(
    ("product", "says"),
    [
        ({"type": "CONV", "A": A, "B": B}, "product 1, key 'type': got 'CONV'"),
        ({"A": A, "B": B}, "product 1, key 'type': got None"),
        ({"type": ["GEMM"], "A": A, "B": B}, "product 1, key 'type': got .'GEMM'."),
        ({"type": "GEMM", "A": A}, "product 1, key 'B': got nothing"),
        ({"type": "GEMM", "A": [1], "B": B}, "product 1, key 'A': got list"),
        ({"type": "GEMM", "A": A, "B": B, "C": A}, "product 1, key 'C'"),
        ({"type": "GEMM", "A": A, "B": B, "bias": A}, "product 1, key 'bias'"),
        ({"type": "LINEAR", "input": A, "weight": A, "bias": 1}, "product 1, key 'bias': got int"),
        ({"type": "LINEAR", "input": A, "weight": B}, "product 1: "),
        ((A, B), "product 1: got tuple"),
    ],
)
def test_a_batch_is_refused_before_anything_is_sent(product: Any, says: str) -> None:
    with shmgemm.open(region=16 << 20) as session:
        with pytest.raises(Unsupported, match=says):
            device_batch_gemm([{"type": "GEMM", "A": A, "B": B}, product])
        assert session.stats()["ops"] == 0
