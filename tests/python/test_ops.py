"""The ops' numbers against float64, for any shape, stride, type and batch; and what they refuse.

test_ops_python.py runs this file and test_transforms.py again without the C++ extension.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import draws  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm import _tensors  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
examples = settings(max_examples=60)

sizes = st.integers(1, 20)
operands = draws.operands(sizes, draws.FLOATS, draws.up_to_one)
Records = Callable[[], list[Any]]


def reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.detach().to(torch.float64) @ b.detach().to(torch.float64)


def assert_close(result: torch.Tensor, wanted: torch.Tensor, k: int) -> None:
    """Rounded once to the result's type, after sums in float32."""
    assert result.shape == wanted.shape
    step = torch.finfo(result.dtype).eps
    bound = step * wanted.abs() + (k + 1) * 2**-23 * (1 + k) + torch.finfo(result.dtype).tiny
    assert ((result.double() - wanted).abs() <= bound).all()


@examples
@given(operands)
def test_gemm(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = pair
    result = torch.ops.shmgemm.gemm(a, b)
    assert result.dtype == a.dtype
    assert result.is_contiguous()
    assert _tensors.in_region(result)
    assert_close(result, reference(a, b), a.shape[-1])


@examples
@given(operands, st.booleans(), st.booleans())
def test_linear(pair: tuple[torch.Tensor, torch.Tensor], has_bias: bool, vector: bool) -> None:
    a, b = pair
    if vector:
        a = a[(0,) * (a.dim() - 1)]
    weight = b[(0,) * (b.dim() - 2)].mT
    bias = torch.linspace(-1, 1, weight.shape[0]).to(a.dtype) if has_bias else None
    result = torch.ops.shmgemm.linear(a, weight, bias)
    wanted = reference(a, weight.mT)
    assert_close(result, wanted if bias is None else wanted + bias.double(), a.shape[-1] + 1)


@pytest.mark.parametrize("out_dtype", draws.FLOATS)
@pytest.mark.parametrize("dtype", draws.FLOATS)
def test_out_dtype_rounds_once(dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    a, b = torch.randn(5, 300).to(dtype), torch.randn(300, 7).to(dtype)
    result = shmgemm.gemm(a, b, out_dtype=out_dtype)
    assert result.dtype is out_dtype
    torch.testing.assert_close(
        result.double(), reference(a, b), rtol=torch.finfo(out_dtype).eps, atol=1e-4
    )


@examples
@given(sizes, sizes, st.sampled_from([1, 7, 1025, 3000]), st.integers(0, 2**31))
def test_int8_is_exact(m: int, n: int, k: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randint(-128, 128, s, dtype=torch.int8, generator=generator) for s in ((m, k), (k, n))
    )
    result = shmgemm.gemm(a, b)
    assert result.dtype is torch.int32
    assert torch.equal(result.long(), a.long() @ b.long())


def test_int8_linear_takes_an_int32_bias() -> None:
    x = torch.randint(-9, 9, (3, 4), dtype=torch.int8)
    w = torch.randint(-9, 9, (5, 4), dtype=torch.int8)
    bias = torch.arange(5, dtype=torch.int32) * 1000
    wanted = x.long() @ w.long().mT + bias
    assert torch.equal(shmgemm.linear(x, w, bias).long(), wanted)


@pytest.mark.parametrize("home", [torch.empty, shmgemm.empty], ids=["outside", "in the region"])
@pytest.mark.parametrize("dtype", draws.INPUTS)
@pytest.mark.parametrize(
    "view",
    [lambda x: x[:, :5], lambda x: x[:, ::2], lambda x: x.transpose(0, 1), lambda x: x.mT[:, :6]],
    ids=["first rows", "every other row", "transposed", "columns"],
)
def test_rows_that_do_not_fold_are_copied_once(
    device: Any, view: Callable[[Any], Any], dtype: torch.dtype, home: Callable[..., Any]
) -> None:
    x = view(home(3, 9, 16, dtype=dtype).copy_(torch.randint(-8, 9, (3, 9, 16))))
    weight = shmgemm.empty(7, x.shape[-1], dtype=dtype).copy_(torch.ones(7, x.shape[-1]))
    for product in (shmgemm.linear, lambda *both: shmgemm.linear_async(*both).result()):
        before = device.stats()
        with torch.profiler.profile() as seen:
            result = product(x, weight)
        after = device.stats()
        assert torch.equal(result, (x.double() @ weight.double().mT).to(result.dtype))
        assert after["ops"] - before["ops"] == 1
        assert after["bytes_copied"] - before["bytes_copied"] == x.nbytes
        # What is counted is all: torch has made no copy of its own before.
        assert "aten::clone" not in {event.name for event in seen.events()}


def test_without_room_for_the_copy_of_rows_it_falls_back() -> None:
    x = torch.ones(3, 900, 1000)[:, :300]
    weight = torch.ones(2, 1000)
    with shmgemm.open(region=4 << 20, strict=False) as session:
        held = shmgemm.empty(session.stats()["heap_bytes"] // 8)
        for product in (shmgemm.linear, lambda *both: shmgemm.linear_async(*both).result()):
            with pytest.warns(shmgemm.FallbackWarning):
                assert (product(x, weight) == 1000).all()
        assert session.stats()["ops"] == 0
        del held


def test_expanded_and_overlapping_operands() -> None:
    row = torch.randn(6)
    windows = torch.randn(30).as_strided((8, 6), (3, 1))
    for a in (row.expand(8, 6), windows, torch.randn(1).expand(8, 6)):
        for b in (windows.mT, row.unsqueeze(1).expand(6, 4), a.mT):
            assert_close(shmgemm.gemm(a, b), reference(a, b), 6)


def test_a_product_with_itself() -> None:
    a = shmgemm.empty(9, 9).normal_()
    torch.testing.assert_close(shmgemm.gemm(a, a).double(), reference(a, a), rtol=1e-5, atol=1e-5)


def test_operands_in_the_region_are_not_copied(device: Any) -> None:
    a, b = shmgemm.empty(12, 34).normal_(), shmgemm.empty(56, 34).normal_()
    x = shmgemm.empty(2, 3, 34).normal_()
    bias = shmgemm.empty(56).normal_()
    before = device.stats()
    shmgemm.gemm(a, b.mT)
    shmgemm.linear(x, b, bias)
    shmgemm.gemm(a[3:7], b[:5].mT)
    after = device.stats()
    assert after["ops"] - before["ops"] == 3
    assert after["bytes_copied"] == before["bytes_copied"]


def test_others_are_copied_once_each(device: Any) -> None:
    a, b = torch.randn(12, 34), torch.randn(34, 56)
    before = device.stats()["bytes_copied"]
    shmgemm.gemm(a, b)
    assert device.stats()["bytes_copied"] - before == a.nbytes + b.nbytes


@st.composite
def slices(draw: st.DrawFn) -> tuple[torch.Tensor, bool]:
    """A matrix or a batch of them cut out of a larger tensor; and whether a command can say how."""
    batch, rows, columns = draw(st.integers(1, 3)), draw(sizes), draw(sizes)
    wide = [size + draw(st.integers(0, 3)) for size in (batch, rows, columns)]
    order = draw(st.permutations(range(3)))
    values = torch.randn([wide[i] for i in order]).permute([order.index(i) for i in range(3)])
    step = draw(st.sampled_from([1, 1, 2]))
    view = values[:batch, :rows, :columns:step]
    _, row, column = view.stride()
    rows, columns = view.shape[1:]
    plain = (columns == 1 or column == 1) and (rows == 1 or row >= columns)
    turned = (rows == 1 or row == 1) and (columns == 1 or column >= rows)
    return view, plain or turned


@examples
@given(slices(), st.integers(1, 5))
def test_what_a_command_can_say_is_not_copied_and_the_rest_once(
    device: Any, cut: tuple[torch.Tensor, bool], n: int
) -> None:
    outside, describable = cut
    b = shmgemm.empty(outside.shape[0], outside.shape[2], n).normal_()
    extent = 1 + sum((d - 1) * s for d, s in zip(outside.shape, outside.stride(), strict=True))
    memory = shmgemm.empty(extent)
    inside = memory.as_strided(outside.shape, outside.stride()).copy_(outside)
    for a, least, most in (
        (outside, min(outside.numel(), extent), 5 / 4 * outside.numel()),
        (inside, 0, 0 if describable else 5 / 4 * outside.numel()),
    ):
        before = device.stats()["bytes_copied"]
        result = shmgemm.gemm(a, b)
        copied = device.stats()["bytes_copied"] - before
        assert_close(result, reference(a, b), a.shape[-1])
        assert 4 * least <= copied <= 4 * most


def test_sliced_columns_of_a_batch_fold_into_rows(device: Any) -> None:
    wide = shmgemm.empty(2, 3, 40).normal_()
    weight = shmgemm.empty(5, 34).normal_()
    before = device.stats()
    result = shmgemm.linear(wide[..., :34], weight)
    after = device.stats()
    assert_close(result, reference(wide[..., :34], weight.mT), 34)
    assert after["ops"] - before["ops"] == 1
    assert after["bytes_copied"] == before["bytes_copied"]


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((0, 4), (4, 3)),
        ((2, 0), (0, 3)),
        ((2, 4), (4, 0)),
        ((0, 2, 4), (4, 3)),
        ((2, 1, 0), (0, 2)),
    ],
)
def test_empty_products_need_no_command(
    device: Any, a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> None:
    before = device.stats()["commands"]
    result = shmgemm.gemm(torch.randn(a_shape), torch.randn(b_shape))
    wanted = torch.randn(a_shape) @ torch.randn(b_shape)
    assert torch.equal(result, wanted)
    assert device.stats()["commands"] == before


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 0, 4), (0,)])
def test_empty_linear(device: Any, shape: tuple[int, ...]) -> None:
    before = device.stats()["commands"]
    weight, bias = torch.randn(5, shape[-1]), torch.randn(5)
    result = shmgemm.linear(torch.randn(shape), weight, bias)
    assert torch.equal(result, torch.nn.functional.linear(torch.randn(shape), weight, bias))
    assert device.stats()["commands"] == before


def test_nan_and_infinity_pass_through() -> None:
    a, b = torch.ones(3, 3), torch.eye(3)
    a[0, 0], a[1, 1] = float("nan"), float("inf")
    result = shmgemm.gemm(a, b)
    assert result[0].isnan().all()
    assert result[1, 1] == float("inf")
    assert torch.equal(result[2], torch.ones(3))


def test_overflow_of_half_is_infinity() -> None:
    a = torch.full((1, 4), 300.0, dtype=torch.float16)
    assert shmgemm.gemm(a, a.mT).item() == float("inf")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(2, 3), torch.ones(4, 5), r"\(2, 3\) and \(4, 5\)"),
        (torch.ones(3), torch.ones(3, 5), r"a of shape \(3,\); expected two dimensions"),
        (torch.ones(2, 2, 3), torch.ones(3, 3, 5), "batch dimensions"),
        (torch.ones(2, 3).double(), torch.ones(3, 5).double(), r"torch.float64.*\.float\(\)"),
        (
            torch.ones(2, 3),
            torch.ones(3, 5).half(),
            "float32 and torch.float16",
        ),
        (torch.ones(2, 3).int(), torch.ones(3, 5).int(), "torch.int32; expected float32, float16"),
        (torch.ones(2, 3).cfloat(), torch.ones(3, 5).cfloat(), "complex64"),
    ],
)
def test_gemm_refuses(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(shmgemm.Unsupported, match=message) as caught:
        torch.ops.shmgemm.gemm(a, b)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        (torch.ones(2, 3), torch.ones(5, 4), None, r"expected 4 as input's last dimension, got 3"),
        (torch.ones(2, 3), torch.ones(3), None, r"weight of shape \(3,\)"),
        (
            torch.ones(2, 3),
            torch.ones(5, 3),
            torch.ones(4),
            r"\(4,\); expected \(5,\)",
        ),
        (torch.ones(2, 3), torch.ones(5, 3).half(), None, "one dtype"),
        (torch.ones(2, 3), torch.ones(5, 3), torch.ones(5).half(), "bias of torch.float16"),
    ],
)
def test_linear_refuses(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(shmgemm.Unsupported, match=message):
        torch.ops.shmgemm.linear(x, weight, bias)


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [(torch.float32, torch.int32), (torch.float32, torch.float64), (torch.int8, torch.int8)],
)
def test_out_dtype_refuses(dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    a = torch.ones(2, 2, dtype=dtype)
    with pytest.raises(shmgemm.Unsupported, match="out_dtype"):
        shmgemm.gemm(a, a, out_dtype=out_dtype)


def test_sparse_operands_are_refused() -> None:
    with pytest.raises(shmgemm.Unsupported, match=r"sparse.*to_dense"):
        shmgemm.gemm(torch.eye(3).to_sparse(), torch.eye(3))


def test_cuda_operands_are_refused() -> None:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        a = torch.ones(2, 2, device="cuda")
        with pytest.raises(shmgemm.Unsupported, match=r"cuda.*\.cpu\(\)"):
            shmgemm.gemm(a, a)


@pytest.mark.parametrize("number", [2, 255, 256, -1])
def test_a_device_that_is_not_there_is_refused(number: int) -> None:
    with pytest.raises(shmgemm.Unsupported, match="device"):
        shmgemm.gemm(torch.ones(2, 2), torch.ones(2, 2), sim_device=number)
    with pytest.raises(shmgemm.Unsupported, match="device"):
        shmgemm.linear(torch.ones(2, 2), torch.ones(2, 2), sim_device=number)


def test_sim_device_scope_and_label_reach_the_record(records: Records) -> None:
    x, w = torch.ones(2, 3), torch.ones(4, 3)
    torch.ops.shmgemm.linear(x, w, sim_device=1, scope="encoder.0")
    torch.ops.shmgemm.gemm(x, w.mT, label="mine")
    first, second = records()
    assert (first.name, first.scope, first.device) == ("linear", "encoder.0", 1)
    assert (first.m, first.n, first.k, first.batch) == (2, 4, 3, 1)
    assert (second.name, second.scope, second.device) == ("mine", "", 0)


def test_a_scope_does_not_outlive_its_op() -> None:
    from shmgemm import _core

    _core.set_scope("outer")
    try:
        shmgemm.ops.linear_op(torch.ones(2, 3), torch.ones(4, 3), scope="inner")
        assert _core.scope() == "outer"
        with pytest.raises(shmgemm.Unsupported):
            shmgemm.ops.linear_op(torch.ones(2, 3), torch.ones(4, 3), scope="inner", sim_device=9)
        assert _core.scope() == "outer"
    finally:
        _core.set_scope("")


def test_many_threads() -> None:
    failures: list[str] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(30):
            a = torch.randn(5 + seed, 16, generator=generator)
            w = torch.randn(7, 16, generator=generator)
            if (shmgemm.linear(a, w) - a @ w.mT).abs().max() > 1e-4:
                failures.append(f"thread {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_implementation_is_the_one_asked_for() -> None:
    wanted = "python" if os.environ.get("SHMGEMM_TORCH_EXT") == "0" else shmgemm.ops.IMPLEMENTATION
    assert wanted == shmgemm.ops.IMPLEMENTATION
    assert shmgemm.ops.IMPLEMENTATION in ("python", "extension")


def test_torch_and_numpy_do_not_mix() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(shmgemm.Unsupported, match="all operands"):
        shmgemm.gemm(torch.ones(2, 2), numpy.ones((2, 2), "float32"))
