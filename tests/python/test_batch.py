"""Several products in one submission: values, what it costs in commands, errors.

test_ops_python.py runs this file again without the C++ extension.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import shmgemm  # noqa: E402

pytestmark = pytest.mark.usefixtures("device")
examples = settings(max_examples=40)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    m, n, k = (draw(st.integers(0, 12)) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    a = torch.randint(-8, 9, (*batch, m, k), generator=generator).to(dtype)
    b_batch = batch if draw(st.booleans()) else []
    b = torch.randint(-8, 9, (*b_batch, n, k), generator=generator).to(dtype).mT
    return (shmgemm.to_region(a), b) if draw(st.booleans()) and a.numel() else (a, b)


@examples
@given(st.lists(pairs(), max_size=6), st.booleans())
def test_values(products: list[tuple[Any, Any]], tuples: bool) -> None:
    given_as = tuple(products) if tuples else iter(products)
    results = shmgemm.batch(given_as)
    assert len(results) == len(products)
    for result, (a, b) in zip(results, products, strict=True):
        assert torch.equal(result, (a.double() @ b.double()).to(result.dtype))
        assert result.dtype is (torch.int32 if a.dtype is torch.int8 else a.dtype)


@pytest.mark.parametrize("as_numpy", [False, True])
@pytest.mark.parametrize("count", [1, 32, 100])
def test_n_products_are_n_commands_and_a_flush(device: Any, count: int, as_numpy: bool) -> None:
    a = torch.eye(5)
    x = a.numpy() if as_numpy else a
    before = device.stats()
    results = shmgemm.batch((x, x * i) for i in range(count))
    after = device.stats()
    assert after["commands"] - before["commands"] == count + 1
    assert after["ops"] - before["ops"] == count
    assert [float(result[2, 2]) for result in results] == list(range(count))


def test_more_than_go_in_one_submission() -> None:
    a = torch.eye(3)
    results = shmgemm.batch([(a, a * i) for i in range(300)])
    assert all(torch.equal(result, a * i) for i, result in enumerate(results))


def test_three_dimensions_are_one_command(device: Any) -> None:
    a, b = torch.ones(4, 2, 3), torch.ones(4, 3, 5)
    before = device.stats()["commands"]
    (result,) = shmgemm.batch([(a, b)])
    assert device.stats()["commands"] - before == 2
    assert torch.equal(result, a @ b)


def test_nothing(device: Any) -> None:
    before = device.stats()["commands"]
    assert shmgemm.batch([]) == []
    assert shmgemm.batch([(torch.ones(0, 3), torch.ones(3, 2))])[0].shape == (0, 2)
    assert shmgemm.batch([(np.ones((2, 0), "float32"), np.ones((0, 2), "float32"))])[0].sum() == 0
    assert device.stats()["commands"] == before


@pytest.mark.parametrize("as_numpy", [False, True])
def test_an_error_is_raised_before_anything_is_sent(device: Any, as_numpy: bool) -> None:
    a, wrong = torch.ones(2, 2), torch.ones(3, 3)
    x, y = (a.numpy(), wrong.numpy()) if as_numpy else (a, wrong)
    before = device.stats()["commands"]
    with pytest.raises(shmgemm.Unsupported, match=r"\(3, 3\)"):
        shmgemm.batch([(x, x), (x, y)])
    assert device.stats()["commands"] == before


def test_torch_and_numpy_do_not_mix() -> None:
    with pytest.raises(shmgemm.Unsupported, match="all operands"):
        shmgemm.batch([(torch.ones(2, 2), np.ones((2, 2), "float32"))])


def test_results_outlive_each_other(device: Any) -> None:
    a = torch.ones(64, 64)
    first, *others = shmgemm.batch([(a, a)] * 8)
    del others
    for _ in range(20):
        shmgemm.gemm(a, a * 2)
    assert (first == 64).all()


def test_it_goes_to_the_device_and_the_stream(device: Any, records: Any) -> None:
    a = torch.ones(2, 2)
    stream = shmgemm.Stream()
    with shmgemm.stream(stream):
        shmgemm.batch([(a, a), (a, a)], sim_device=1)
    found = records()
    assert [(one.device, one.stream) for one in found] == [(1, stream.number)] * 2
