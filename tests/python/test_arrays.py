"""The NumPy face: the same numbers with torch in the house, and alone without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scripts
from hypothesis import given, settings
from hypothesis import strategies as st

import shmgemm
from shmgemm import _arrays, _fallback

pytestmark = pytest.mark.usefixtures("device")
sizes = st.integers(1, 12)


def check(result: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    assert result.shape == wanted.shape
    step = float(np.finfo(result.dtype).eps) if result.dtype.kind == "f" else 0
    np.testing.assert_allclose(
        result.astype(np.float64), wanted, rtol=step, atol=1e-4 if step else 0
    )


@settings(max_examples=50)
@given(
    sizes,
    sizes,
    sizes,
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(["float32", "float16", "int8"]),
    st.integers(-2, 2),
    st.booleans(),
)
def test_gemm(
    m: int, n: int, k: int, batch: list[int], dtype: str, step: int, transposed: bool
) -> None:
    rng = np.random.default_rng(m * n + k)
    step = step or 1
    a = rng.integers(-3, 4, (*batch, m * abs(step), k)).astype(dtype)[..., ::step, :]
    b = rng.integers(-3, 4, (n, k) if transposed else (k, n)).astype(dtype)
    b = b.T if transposed else b
    result = _arrays.gemm(a, b)
    assert result.dtype == ("int32" if dtype == "int8" else dtype)
    check(result, a, b)


def test_linear() -> None:
    x, w = np.ones((2, 3, 4), "float32"), np.arange(20, dtype="float32").reshape(5, 4)
    bias = np.arange(5, dtype="float32")
    np.testing.assert_array_equal(shmgemm.linear(x, w, bias), x @ w.T + bias)
    np.testing.assert_array_equal(shmgemm.linear(x[0, 0], w, bias), x[0, 0] @ w.T + bias)


@pytest.mark.parametrize(
    "view",
    [lambda x: x[:, :5], lambda x: x[:, ::2], lambda x: x.swapaxes(0, 1), lambda x: x.mT[:, :6]],
    ids=["first rows", "every other row", "transposed", "columns"],
)
def test_rows_that_do_not_fold_are_one_product_and_one_copy(
    device: Any, view: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = view(np.random.default_rng(5).integers(-8, 9, (3, 9, 16)).astype("float32"))
    w, bias = _arrays.empty(7, x.shape[-1]), np.arange(7, dtype="float32")
    w[...] = np.arange(7)[:, np.newaxis]
    before = device.stats()
    results = shmgemm.linear(x, w), shmgemm.linear_async(x, w, bias).result()
    after = device.stats()
    for result, added in zip(results, (0, bias), strict=True):
        np.testing.assert_array_equal(result, x.astype(float) @ w.astype(float).T + added)
    assert after["ops"] - before["ops"] == 2
    assert after["bytes_copied"] - before["bytes_copied"] == 2 * x.nbytes + bias.nbytes


def test_arrays_in_the_region_are_not_copied(device: Any) -> None:
    a, b = _arrays.empty(6, 7), _arrays.empty((7, 8), dtype=np.float32)
    a[...], b[...] = 1, 2
    before = device.stats()["bytes_copied"]
    result = shmgemm.gemm(a, b)
    assert device.stats()["bytes_copied"] == before
    np.testing.assert_array_equal(result, a @ b)
    assert device.core.contains(result.ctypes.data, result.nbytes)


def test_empty_products(device: Any) -> None:
    before = device.stats()["commands"]
    np.testing.assert_array_equal(
        shmgemm.gemm(np.ones((2, 0), "float32"), np.ones((0, 3), "float32")), np.zeros((2, 3))
    )
    assert shmgemm.gemm(np.ones((0, 2), "float32"), np.ones((2, 3), "float32")).shape == (0, 3)
    assert device.stats()["commands"] == before


def test_bfloat16_is_its_bits() -> None:
    bits = _arrays.empty(2, 2, dtype="bfloat16")
    assert bits.dtype == np.uint16


def test_out_dtype() -> None:
    a = np.full((1, 4000), 1.0, "float16")
    assert shmgemm.gemm(a, a.T, out_dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((2, 3), "float32"), np.ones((4, 5), "float32"), "expected 3 rows in b"),
        (np.ones((2, 3)), np.ones((3, 5)), r"float64.*astype"),
        (np.ones((2, 3), "float32"), np.ones((3, 5), "float16"), "one dtype"),
        (np.ones(3, "float32"), np.ones((3, 5), "float32"), "2 dimensions at least"),
        ([[1.0]], np.ones((1, 1), "float32"), "builtins.list"),
    ],
)
def test_refusals(a: Any, b: Any, message: str) -> None:
    with pytest.raises(shmgemm.Unsupported, match=message):
        _arrays.gemm(a, b)


def test_fallback_and_strict() -> None:
    for strict in (False, True):
        with shmgemm.open(region=4 << 20, strict=strict):
            blocks, size = [], 1 << 20
            while size:
                try:
                    blocks.append(_arrays.empty(size, dtype="int8"))
                except shmgemm.RegionFull:
                    size //= 2
            a = np.ones((3, 3), "float32")
            before = _fallback.counters().fallen_ops
            if strict:
                with pytest.raises(shmgemm.RegionFull):
                    _arrays.gemm(a, a)
            else:
                with pytest.warns(shmgemm.FallbackWarning, match="3x3 @ 3x3"):
                    check(_arrays.gemm(a, a), a, a)
                assert _fallback.counters().fallen_ops == before + 1
            blocks.clear()


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
import shmgemm
a, b = shmgemm.empty(4, 8), shmgemm.empty(8, 16)
assert isinstance(a, np.ndarray)
a[...], b[...] = np.arange(32).reshape(4, 8), 0.5
with shmgemm.profile() as prof:
    c = shmgemm.gemm(a, b)
assert np.array_equal(c, a @ b)
assert len(prof.records) == 1 and prof.records[0].bytes_copied == 0
assert shmgemm.stats()["bytes_copied"] == 0
try:
    shmgemm.DeviceLinear
except ImportError as error:
    assert "torch" in str(error)
else:
    raise AssertionError("DeviceLinear without torch")
print("right")
"""


def test_alone_without_torch() -> None:
    assert scripts.output(WITHOUT_TORCH, SHMGEMM_STRICT="1") == "right"
