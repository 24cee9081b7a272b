"""torch's product functions inside `offload_functional`: on the device, however they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

import shmgemm  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
Records = Callable[[], list[Any]]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)

X, W = torch.randn(2, 3, 4), torch.randn(5, 4)
A, B, BIAS, C = torch.randn(3, 4), torch.randn(4, 5), torch.randn(5), torch.randn(3, 5)
STACK = torch.randn(2, 4, 5)
PRODUCTS: dict[str, Callable[[], Any]] = {
    "linear": lambda: F.linear(X, W),
    "linear, keywords": lambda: F.linear(input=X, weight=W, bias=BIAS),
    "@": lambda: X @ W.mT,
    "matmul": lambda: torch.matmul(X, W.mT),
    "matmul, keywords": lambda: torch.matmul(input=X, other=W.mT),
    "method matmul": lambda: X.matmul(other=W.mT),
    "mm": lambda: torch.mm(A, B),
    "mm, keywords": lambda: torch.mm(input=A, mat2=B),
    "method mm": lambda: A.mm(B),
    "bmm": lambda: X.bmm(X.mT),
    "bmm, keywords": lambda: torch.bmm(input=X, mat2=X.mT),
    "addmm of a bias": lambda: torch.addmm(BIAS, A, B),
    "addmm of a matrix": lambda: torch.addmm(C, A, B, beta=0.5, alpha=-2),
    "addmm of a column": lambda: torch.addmm(C[:, :1], mat1=A, mat2=B, beta=3),
    "addmm without": lambda: torch.addmm(torch.full((5,), torch.nan), A, B, beta=0),
    "method addmm": lambda: C.addmm(A, B, alpha=2),
    "baddbmm": lambda: torch.baddbmm(C, X, STACK, beta=2),
    "method baddbmm": lambda: torch.ones(2, 3, 5).baddbmm(batch1=X, batch2=STACK),
}
STAY: dict[str, Callable[[], Any]] = {
    "vectors": lambda: torch.ones(4) @ torch.ones(4),
    "double": lambda: torch.ones(2, 2).double() @ torch.ones(2, 2).double(),
    "out": lambda: torch.mm(A, B, out=torch.empty(3, 5)),
    "einsum": lambda: torch.einsum("ij,jk->ik", A, B),
    "addmm with out": lambda: torch.addmm(C, A, B, out=torch.empty(3, 5)),
}
REFUSED: dict[str, Callable[[], Any]] = {
    "mm of stacks": lambda: torch.mm(X, X.mT),
    "bmm of one and two": lambda: torch.bmm(X[:1], STACK),
    "inner sizes": lambda: torch.matmul(A, A),
    "addmm of too much": lambda: torch.addmm(torch.ones(2, 3, 5), A, B),
    "addmm of two types": lambda: torch.addmm(C.double(), A, B),
    "given twice": lambda: torch.matmul(A, B, other=B),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_on_the_device(records: Records, product: Callable[[], Any]) -> None:
    wanted = product()
    with shmgemm.offload_functional(sim_device=1):
        ours = product()
    assert ours.dtype is wanted.dtype
    torch.testing.assert_close(ours, wanted)
    assert [record.device for record in records()] == [1]


@pytest.mark.parametrize("product", STAY.values(), ids=STAY)
def test_left_to_torch(records: Records, product: Callable[[], Any]) -> None:
    with shmgemm.offload_functional():
        assert torch.equal(product(), product())
    assert not records()


@pytest.mark.parametrize("product", REFUSED.values(), ids=REFUSED)
def test_refused_as_by_torch(records: Records, product: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, TypeError)) as theirs:
        product()
    with shmgemm.offload_functional(), pytest.raises((RuntimeError, TypeError)) as ours:
        product()
    assert (ours.type, str(ours.value)) == (theirs.type, str(theirs.value))
    assert not records()


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_sum_is_rounded_once(dtype: torch.dtype) -> None:
    c, a, b = (torch.randn(s).to(dtype) for s in ((7, 9), (7, 33), (33, 9)))
    with shmgemm.offload_functional():
        ours = torch.addmm(c, a, b, beta=0.5, alpha=3)
    wanted = 0.5 * c.double() + 3 * (a.double() @ b.double())
    assert ours.dtype is dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(ours.double(), wanted, rtol=step / 2 + 1e-6, atol=1e-4)


def test_gradients_of_a_sum() -> None:
    def gradients() -> list[Any]:
        leaves = [x.clone().requires_grad_() for x in (C, A, B)]
        torch.addmm(*leaves, beta=0.5, alpha=3).square().sum().backward()
        return [leaf.grad for leaf in leaves]

    wanted = gradients()
    with shmgemm.offload_functional():
        ours = gradients()
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("added", [BIAS, C])
def test_autocast(records: Records, added: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        wanted = torch.addmm(added, A, B)
        with shmgemm.offload_functional():
            ours = torch.addmm(added, A, B)
    assert ours.dtype is wanted.dtype is torch.bfloat16
    torch.testing.assert_close(ours, wanted, rtol=2**-7, atol=2**-7)
    assert len(records()) == 1
