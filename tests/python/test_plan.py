"""How a product is cut into commands, against NumPy's view of the same memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmgemm._plan import Plan, plan, plan_linear
from shmgemm.errors import Unsupported

sizes = st.integers(1, 3)


def strides_of(array: np.ndarray) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]


def run(steps: Plan, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What a device would write, by indices alone."""
    a_memory, b_memory = memory_of(a), memory_of(b)
    c = np.full(int(np.prod(steps.shape)), np.nan)
    for a_start, b_start, c_start in steps.starts:
        for entry in range(steps.batch):
            for i in range(steps.m):
                for j in range(steps.n):
                    total = 0.0
                    for x in range(steps.k):
                        at = a_start + entry * steps.a[0] + i * steps.a[1] + x * steps.a[2]
                        bt = b_start + entry * steps.b[0] + x * steps.b[1] + j * steps.b[2]
                        total += a_memory[at] * b_memory[bt]
                    where = c_start + entry * steps.c[0] + i * steps.c[1] + j
                    assert np.isnan(c[where]), "written twice"
                    c[where] = total
    return c.reshape(steps.shape)


def memory_of(array: np.ndarray) -> np.ndarray:
    extent = 1 + sum((n - 1) * s for n, s in zip(array.shape, strides_of(array), strict=True))
    return np.lib.stride_tricks.as_strided(array, (extent,), (array.itemsize,))


@st.composite
def operands(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    m, n, k = draw(sizes), draw(sizes), draw(sizes)
    batch = draw(st.lists(sizes, max_size=3))
    made = []
    for rows, columns in ((m, k), (k, n)):
        own = [1 if draw(st.booleans()) else size for size in batch]
        own = own[draw(st.integers(0, len(own))) :] if draw(st.booleans()) else own
        shape = [*own, rows, columns]
        order = draw(st.permutations(range(len(shape))))
        padded = [size + draw(st.integers(0, 1)) for size in np.take(shape, order)]
        memory = np.arange(int(np.prod(padded)), dtype=float).reshape(padded) + draw(sizes)
        array = memory.transpose(np.argsort(order))[tuple(slice(size) for size in shape)]
        if draw(st.booleans()):
            array = np.broadcast_to(array[..., :1], shape)
        made.append(array)
    return made[0], made[1]


@given(operands())
def test_every_element_is_computed_once_and_right(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    steps = plan(a.shape, strides_of(a), b.shape, strides_of(b))
    np.testing.assert_array_equal(run(steps, a, b), a @ b)


def test_a_folded_linear_is_one_tall_command() -> None:
    steps = plan((2, 3, 4, 8), (96, 32, 8, 1), (8, 5), (5, 1))
    assert (steps.m, steps.n, steps.k, steps.batch, len(steps.starts)) == (24, 5, 8, 1, 1)
    assert steps.shape == (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("strides", "dense"),
    [
        ((96, 32, 8, 1), False),
        ((8, 16, 48, 1), True),  # permuted
        ((192, 64, 8, 1), True),  # the first rows of longer ones
        ((12, 4, 1, 24), False),  # transposed, and folds
    ],
)
def test_a_linear_product_is_one_tall_command(strides: tuple[int, ...], dense: bool) -> None:
    steps, is_dense = plan_linear((2, 3, 4, 8), strides, (8, 5), (5, 1))
    assert is_dense is dense
    assert (steps.m, steps.n, steps.k, steps.batch) == (24, 5, 8, 1)
    assert (steps.shape, steps.starts) == ((2, 3, 4, 5), [(0, 0, 0)])
    assert steps.a[1:] == ((8, 1) if dense else strides[2:])


def test_one_batch_stride_is_one_command() -> None:
    steps = plan((2, 3, 4, 8), (96, 32, 8, 1), (2, 3, 8, 5), (120, 40, 5, 1))
    assert (steps.m, steps.batch, len(steps.starts)) == (4, 6, 1)


def test_heads_within_rows_take_the_larger_dimension_as_batch() -> None:
    heads = plan((2, 6, 4, 8), (192, 8, 48, 1), (2, 6, 8, 4), (192, 8, 1, 48))
    assert (heads.batch, len(heads.starts)) == (6, 2)


@pytest.mark.parametrize(
    ("a", "b"), [((0, 4), (4, 3)), ((2, 0), (0, 3)), ((2, 4), (4, 0)), ((0, 2, 4), (4, 3))]
)
def test_nothing_to_multiply_is_no_command(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    steps = plan(a, [1] * len(a), b, [1] * len(b))
    assert steps.starts == []
    assert steps.shape == (np.empty(a) @ np.empty(b)).shape


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((2, 3), (4, 5), r"\(2, 3\) and \(4, 5\); expected 3 rows in b, got 4"),
        ((2, 2, 3), (3, 3, 5), r"batch dimensions \(2,\) of a and \(3,\) of b"),
        ((1, 2**31), (2**31, 1), r"2\*\*31"),
    ],
)
def test_refusals(a: tuple[int, ...], b: tuple[int, ...], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        plan(a, [1] * len(a), b, [1] * len(b))
