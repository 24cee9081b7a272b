"""The ops under autograd, torch.compile, vmap, functorch, autocast and torch's own op checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import shmgemm  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.filterwarnings("ignore:.*double precision floating point"),
]
Records = Callable[[], list[Any]]


def tensor(*shape: int, grad: bool = True, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_(grad)


GEMMS = [
    ((3, 4), (4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (3, 4, 2)),
]
LINEARS = [((3, 4), (5, 4), True), ((2, 3, 4), (5, 4), True), ((4,), (5, 4), False)]


@pytest.mark.parametrize(("a", "b"), GEMMS)
def test_gemm_opcheck(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    torch.library.opcheck(torch.ops.shmgemm.gemm.default, (tensor(*a), tensor(*b)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_opcheck(dtype: torch.dtype) -> None:
    operands = tensor(3, 4, dtype=dtype), tensor(4, 5, dtype=dtype)
    torch.library.opcheck(torch.ops.shmgemm.gemm.default, operands, {"out_dtype": torch.float32})


def test_int8_opcheck() -> None:
    a = torch.ones(3, 3, dtype=torch.int8)
    torch.library.opcheck(torch.ops.shmgemm.gemm.default, (a, a))


@pytest.mark.parametrize(("x", "w", "bias"), LINEARS)
def test_linear_opcheck(x: tuple[int, ...], w: tuple[int, ...], bias: bool) -> None:
    operands = tensor(*x), tensor(*w), tensor(w[0]) if bias else None
    torch.library.opcheck(torch.ops.shmgemm.linear.default, operands)


@pytest.mark.parametrize(("a", "b"), GEMMS)
def test_gemm_gradients(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    operands = tensor(*a), tensor(*b)
    # The product is linear in each operand, so a large step has no truncation error.
    assert torch.autograd.gradcheck(shmgemm.gemm, operands, eps=0.5, atol=1e-3, rtol=1e-3)
    assert torch.autograd.gradgradcheck(shmgemm.gemm, operands, eps=0.5, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("x", "w", "bias"), LINEARS)
def test_linear_gradients(x: tuple[int, ...], w: tuple[int, ...], bias: bool) -> None:
    operands = tensor(*x), tensor(*w), tensor(w[0]) if bias else None
    assert torch.autograd.gradcheck(shmgemm.linear, operands, eps=0.5, atol=1e-3, rtol=1e-3)
    assert torch.autograd.gradgradcheck(shmgemm.linear, operands, eps=0.5, atol=1e-3, rtol=1e-3)


def test_gradients_are_device_products(records: Records) -> None:
    x, w, bias = tensor(2, 3, 4), tensor(5, 4), tensor(5)
    torch.ops.shmgemm.linear(x, w, bias, scope="layer").sum().backward()
    ran = {record.name: record for record in records()}
    assert sorted(ran) == ["linear", "linear.grad_input", "linear.grad_weight"]
    assert {record.scope for record in ran.values()} == {"layer"}
    assert [(r.m, r.n, r.k) for r in ran.values()] == [(6, 5, 4), (6, 4, 5), (5, 4, 6)]
    assert torch.equal(bias.grad, torch.full((5,), 6.0))


@pytest.mark.parametrize(
    ("needs", "names"),
    [
        ((True, False), ["linear", "linear.grad_input"]),
        ((False, True), ["linear", "linear.grad_weight"]),
    ],
)
def test_only_needed_gradients_are_computed(
    records: Records, needs: tuple[bool, bool], names: list[str]
) -> None:
    x, w = tensor(3, 4, grad=needs[0]), tensor(5, 4, grad=needs[1])
    shmgemm.linear(x, w).sum().backward()
    assert [record.name for record in records()] == names


def test_no_grad_and_inference_mode() -> None:
    x, w = tensor(3, 4), tensor(5, 4)
    with torch.no_grad():
        assert not shmgemm.linear(x, w).requires_grad
    with torch.inference_mode():
        assert shmgemm.linear(x, w).is_inference()
    assert shmgemm.linear(x, w).requires_grad


def test_low_precision_gradients_have_the_operands_type() -> None:
    a, b = tensor(3, 4, dtype=torch.bfloat16), tensor(4, 5, dtype=torch.bfloat16)
    result = shmgemm.gemm(a, b, out_dtype=torch.float32)
    result.backward(torch.ones_like(result))
    assert a.grad.dtype is torch.bfloat16
    torch.testing.assert_close(
        a.grad.double(), torch.ones(3, 5).double() @ b.detach().double().mT, rtol=2**-7, atol=1e-6
    )


def test_a_result_may_be_changed_in_place() -> None:
    x, w = tensor(3, 4), tensor(5, 4)
    shmgemm.linear(x, w).relu_().sum().backward()
    ours = x.grad.clone()
    x.grad = None
    F.linear(x, w).relu_().sum().backward()
    torch.testing.assert_close(ours, x.grad)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic: bool) -> None:
    def model(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.relu(shmgemm.linear(x, w, b)) @ shmgemm.gemm(w, w.mT)

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for rows in (3, 6):
        x, w, b = tensor(rows, 4), tensor(5, 4), tensor(5)
        compiled(x, w, b).sum().backward()
        ours = [t.grad.clone() for t in (x, w, b)]
        for t in (x, w, b):
            t.grad = None
        (torch.relu(F.linear(x, w, b)) @ (w @ w.mT)).sum().backward()
        for mine, t in zip(ours, (x, w, b), strict=True):
            torch.testing.assert_close(mine, t.grad, rtol=1e-4, atol=1e-4)


def test_compiled_modules_keep_their_names(records: Records) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    shmgemm.offload_(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(tensor(3, 4)).sum().backward()
    names = {(record.name, record.scope) for record in records()}
    assert {("linear", "0"), ("linear.grad_weight", "2")} <= names


@pytest.mark.parametrize(
    ("shapes", "in_dims"),
    [
        (((7, 3, 4), (7, 4, 5)), (0, 0)),
        (((3, 7, 4), (4, 5)), (1, None)),
        (((3, 4), (4, 5, 7)), (None, 2)),
        (((3, 4, 7), (2, 7, 4, 5)), (2, 1)),
        (((2, 3, 4, 7), (4, 7, 5)), (-1, 1)),
    ],
)
def test_vmap_gemm(shapes: Any, in_dims: Any) -> None:
    a, b = (tensor(*shape) for shape in shapes)
    torch.testing.assert_close(
        torch.vmap(shmgemm.gemm, in_dims)(a, b), torch.vmap(torch.matmul, in_dims)(a, b)
    )


@pytest.mark.parametrize(
    ("shapes", "in_dims"),
    [
        (((3, 7, 4), (5, 4), (5,)), (1, None, None)),
        (((7, 4), (5, 4), (5,)), (0, None, None)),
        (((3, 4), (5, 7, 4), (5,)), (None, 1, None)),
        (((3, 4, 7), (5, 7, 4), (7, 5)), (2, 1, 0)),
        (((4, 7), (5, 7, 4), (5, 7)), (1, 1, 1)),
        (((2, 3, 4), (5, 4), (5, 7)), (None, None, 1)),
    ],
)
def test_vmap_linear(shapes: Any, in_dims: Any) -> None:
    operands = [tensor(*shape) for shape in shapes]
    torch.testing.assert_close(
        torch.vmap(shmgemm.linear, in_dims)(*operands),
        torch.vmap(F.linear, in_dims)(*operands),
        rtol=1e-5,
        atol=1e-5,
    )


def test_vmap_is_one_batched_command(records: Records) -> None:
    torch.vmap(shmgemm.gemm)(tensor(7, 3, 4, grad=False), tensor(7, 4, 5, grad=False))
    assert [(r.m, r.n, r.k, r.batch) for r in records()] == [(3, 5, 4, 7)]


def test_per_sample_gradients() -> None:
    w = tensor(5, 4)

    def loss(linear: Any, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return linear(x, weight).square().sum()

    samples = tensor(6, 3, 4, grad=False)
    ours, theirs = (
        torch.vmap(torch.func.grad(lambda w, x, f=f: loss(f, w, x)), (None, 0))(w, samples)
        for f in (shmgemm.linear, F.linear)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def mlp(gemm: Any, x: Any, weights: Any) -> Any:
    return gemm(torch.tanh(gemm(x, weights[0])), weights[1]).pow(2).sum()


NESTED = {
    "grad of grad": lambda f: grad(lambda x: grad(f)(x).sum()),
    "hessian": hessian,
    "jacrev of grad": lambda f: jacrev(grad(f)),
    "jacfwd": jacfwd,
    "jacfwd of jacrev": lambda f: jacfwd(jacrev(f)),
    "third order": lambda f: grad(lambda x: grad(lambda y: grad(f)(y).sum())(x).sum()),
    "jvp": lambda f: lambda x: jvp(f, (x,), (torch.ones_like(x),))[1],
    "jvp of vjp": lambda f: lambda x: jvp(grad(f), (x,), (x.cos(),))[1],
    "vmap of hessian": lambda f: lambda x: vmap(hessian(lambda row: f(row[None])))(x),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("linear", [False, True], ids=["gemm", "linear"])
def test_nested_transforms(name: str, linear: bool) -> None:
    torch.manual_seed(3)
    x = torch.randn(3, 4)
    weights = (torch.randn(4, 6), torch.randn(6, 2))

    def by_linear(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return shmgemm.linear(a, b.mT, a.sum() * torch.ones(b.shape[1]))

    def by_torch(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b + (a.sum() if linear else 0)

    ours = by_linear if linear else shmgemm.gemm
    transform = NESTED[name]
    found = transform(lambda x: mlp(ours, x, weights))(x)
    expected = transform(lambda x: mlp(by_torch, x, weights))(x)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_forward_mode_with_and_without_reverse_mode() -> None:
    a, tangent = torch.randn(3, 4), torch.randn(3, 4)
    b, b_tangent = torch.randn(4, 2), torch.randn(4, 2)
    for requires_grad in (False, True):
        with forward_ad.dual_level():
            dual_a = forward_ad.make_dual(a.clone().requires_grad_(requires_grad), tangent)
            dual_b = forward_ad.make_dual(b, b_tangent)
            result, derivative = forward_ad.unpack_dual(shmgemm.gemm(dual_a, dual_b))
            torch.testing.assert_close(result.detach(), a @ b)
            torch.testing.assert_close(derivative.detach(), tangent @ b + a @ b_tangent)
            assert result.requires_grad == requires_grad
            only_b = forward_ad.unpack_dual(shmgemm.gemm(a, dual_b)).tangent
            torch.testing.assert_close(only_b, a @ b_tangent)
    assert shmgemm.gemm(a, b).shape == (3, 2)


def test_forward_mode_derivatives_are_device_products(records: Records) -> None:
    jvp(lambda x: shmgemm.linear(x, torch.randn(5, 4)), (torch.randn(3, 4),), (torch.randn(3, 4),))
    assert [record.name for record in records()] == ["linear", "linear.jvp_input"]


def test_a_module_with_parameters_under_functional_transforms() -> None:
    """Parameters that require grad outside of functorch's levels."""
    layer = shmgemm.DeviceLinear(4, 3)
    x = torch.randn(2, 4)
    inner = grad(lambda x: layer(x).pow(2).sum())(x)
    inner.sum().backward()
    found = layer.weight.grad.clone()
    layer.zero_grad()
    y = x.clone().requires_grad_()
    plain = torch.nn.functional.linear(y, layer.weight, layer.bias).pow(2).sum()
    torch.autograd.grad(plain, y, create_graph=True)[0].sum().backward()
    torch.testing.assert_close(found, layer.weight.grad, rtol=1e-4, atol=1e-4)


def test_autocast() -> None:
    layer = shmgemm.DeviceLinear(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = layer(tensor(3, 4))
        assert result.dtype is torch.bfloat16
        assert shmgemm.gemm(result, tensor(5, 2)).dtype is torch.bfloat16
    result.float().sum().backward()
    assert layer.weight.grad.dtype is torch.float32


def test_meta_tensors() -> None:
    a = torch.empty(2, 3, 4, device="meta")
    assert shmgemm.gemm(a, torch.empty(4, 5, device="meta")).shape == (2, 3, 5)
    with pytest.raises(shmgemm.Unsupported):
        shmgemm.gemm(a, torch.empty(3, 5, device="meta"))


def test_export() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return shmgemm.gemm(x, x.mT)

    x = tensor(3, 4, grad=False)
    program = torch.export.export(Model(), (x,))
    torch.testing.assert_close(program.module()(x), x @ x.mT)
