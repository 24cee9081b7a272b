"""numerics="bit_accurate": every bit against a NumPy loop over k, for each dataflow and type.

test_ops_python.py runs this file again without the C++ extension.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import shmgemm  # noqa: E402
from shmgemm import _core, cli  # noqa: E402

ROWS, COLS = 4, 4
ALL_OF_K = 2**31
LENGTHS = {
    "scalesim_ws": ROWS,
    "scalesim_is": ROWS,
    "scalesim_os": ALL_OF_K,
    "ws_double_buffered": ROWS,
    "systolic": ROWS,
}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
CANONICAL_NAN = {torch.float32: 0x7FC00000, torch.float16: 0x7E00, torch.bfloat16: 0x7FC0}
SPECIALS = np.array([0.0, -0.0, 1e-45, -1e-40, 6e-8, 65504.0, 3e38, np.inf, -np.inf, np.nan], "f4")
examples = settings(max_examples=60)


def opened(model: str, **arguments: Any) -> shmgemm.Session:
    hardware = {"model": model, "rows": ROWS, "cols": COLS, "clock": "1MHz"}
    return shmgemm.open(hardware=hardware, region=32 << 20, **arguments)


@pytest.fixture(scope="module", params=list(LENGTHS))
def length(request: pytest.FixtureRequest) -> Iterator[int]:
    """The accumulation length of the session that is current meanwhile."""
    with opened(request.param, numerics="bit_accurate", threads=2) as session:
        assert session.numerics == "bit_accurate"
        yield LENGTHS[request.param]


@np.errstate(all="ignore")
def in_order(a: Any, b: Any, length: int, bias: Any = None) -> Any:
    """float32 [..., M, N]; NumPy rounds each product and each sum, one k after the other."""
    k = a.shape[-1]
    total = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    for first in range(0, k, length):
        chunk = np.zeros_like(total)
        for i in range(first, min(k, first + length)):
            chunk = chunk + a[..., :, i : i + 1] * b[..., i : i + 1, :]
        total = total + chunk
    return total if bias is None else total + bias


def wide(tensor: torch.Tensor) -> Any:
    return tensor.detach().to(torch.float32).numpy()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(torch.int32 if tensor.itemsize == 4 else torch.int16)


def assert_same(result: torch.Tensor, total: Any) -> None:
    rounded = torch.from_numpy(total).to(result.dtype)
    assert result.shape == rounded.shape
    # torch has several NaNs of bfloat16, the device one.
    wanted = torch.where(rounded.isnan(), CANONICAL_NAN[result.dtype], bits(rounded))
    assert torch.equal(bits(result), wanted)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any, special: bool) -> Any:
    values = rng.standard_normal(shape).astype("f4") * 2.0 ** rng.integers(-9, 4, shape)
    values = values.astype("f4")
    if special:
        values = np.where(rng.random(shape) < 0.1, rng.choice(SPECIALS, shape), values)
    return torch.from_numpy(values).to(dtype)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 23))


@examples
@given(
    sizes,
    st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(FLOATS),
    st.sampled_from((None, *FLOATS)),
    st.tuples(*[st.booleans()] * 4),
    st.integers(0, 2**32 - 1),
)
def test_gemm(
    length: int,
    size: tuple[int, int, int],
    batch: list[int],
    dtype: torch.dtype,
    out_dtype: torch.dtype | None,
    ways: tuple[bool, ...],
    seed: int,
) -> None:
    (m, n, k), rng = size, np.random.default_rng(seed)
    special, a_lies_across, b_lies_across, one_b = ways
    a = numbers(rng, (*batch, k, m) if a_lies_across else (*batch, m, k), dtype, special)
    b_batch = () if one_b else tuple(batch)
    b = numbers(rng, (*b_batch, n, k) if b_lies_across else (*b_batch, k, n), dtype, special)
    a, b = a.mT if a_lies_across else a, b.mT if b_lies_across else b
    result = shmgemm.gemm(a, b, out_dtype=out_dtype)
    assert result.dtype == (out_dtype or dtype)
    assert_same(result, in_order(wide(a), wide(b), length))


@examples
@given(sizes, st.sampled_from(FLOATS), st.booleans(), st.integers(0, 2**32 - 1))
def test_linear_with_bias(
    length: int, size: tuple[int, int, int], dtype: torch.dtype, special: bool, seed: int
) -> None:
    (m, n, k), rng = size, np.random.default_rng(seed)
    x, weight = numbers(rng, (2, m, k), dtype, special), numbers(rng, (n, k), dtype, special)
    bias = numbers(rng, (n,), dtype, special)
    result = shmgemm.linear(x, weight, bias)
    assert_same(result, in_order(wide(x), wide(weight).T, length, wide(bias)))


@examples
@given(sizes, st.sampled_from(["float32", "float16"]), st.integers(0, 2**32 - 1))
def test_numpy_arrays(length: int, size: tuple[int, int, int], dtype: str, seed: int) -> None:
    (m, n, k), rng = size, np.random.default_rng(seed)
    a = numbers(rng, (m, k), torch.float32, True).numpy()
    b = numbers(rng, (k, n), torch.float32, True).numpy()
    with np.errstate(all="ignore"):
        a, b = a.astype(dtype), b.astype(dtype)
    result = shmgemm.gemm(a, b)
    assert result.dtype == dtype
    assert_same(torch.from_numpy(result), in_order(a.astype("f4"), b.astype("f4"), length))


@examples
@given(sizes, st.integers(0, 2**32 - 1))
def test_int8(length: int, size: tuple[int, int, int], seed: int) -> None:
    (m, n, k), rng = size, np.random.default_rng(seed)
    a = rng.integers(-128, 128, (m, k)).astype("int8")
    weight = rng.integers(-128, 128, (n, k)).astype("int8")
    bias = rng.integers(-(2**31), 2**31, n).astype("int32")
    wanted = (a.astype("int64") @ weight.T.astype("int64") + bias).astype("int32")
    np.testing.assert_array_equal(shmgemm.linear(a, weight, bias), wanted)
    tensors = [torch.from_numpy(array) for array in (a, weight, bias)]
    np.testing.assert_array_equal(shmgemm.linear(*tensors).numpy(), wanted)


def test_backward_products_too(length: int) -> None:
    rng = np.random.default_rng(1)
    x = numbers(rng, (30, 21), torch.float32, False).requires_grad_()
    weight = numbers(rng, (11, 21), torch.float32, False).requires_grad_()
    gradient = numbers(rng, (30, 11), torch.float32, False)
    shmgemm.linear(x, weight).backward(gradient)
    assert x.grad is not None
    assert weight.grad is not None
    assert_same(x.grad, in_order(wide(gradient), wide(weight), length))
    assert_same(weight.grad, in_order(wide(gradient).T, wide(x), length))


def test_the_number_of_threads_and_the_engine_make_no_difference() -> None:
    rng = np.random.default_rng(2)
    a = numbers(rng, (300, 140), torch.float32, False)
    b = numbers(rng, (140, 290), torch.float32, False)
    wanted = in_order(wide(a), wide(b), ROWS)
    for threads in (1, 2, 3):
        with opened("scalesim_ws", numerics="bit_accurate", threads=threads):
            assert_same(shmgemm.gemm(a, b), wanted)


def test_fast_is_the_default_and_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHMGEMM_NUMERICS", raising=False)
    rng = np.random.default_rng(3)
    a = numbers(rng, (40, 3000), torch.float32, False)
    b = numbers(rng, (3000, 40), torch.float32, False)
    results, cycles = {}, {}
    for numerics in (None, "fast", "bit_accurate"):
        with opened("scalesim_ws", numerics=numerics, threads=1) as session:
            assert session.numerics == (numerics or "fast")
            results[numerics] = shmgemm.gemm(a, b)
            cycles[numerics] = session.stats()["cycles"]
    assert torch.equal(results[None], results["fast"])
    assert not torch.equal(results["fast"], results["bit_accurate"])
    torch.testing.assert_close(results["fast"], results["bit_accurate"], rtol=1e-4, atol=1e-2)
    assert len(set(cycles.values())) == 1


def test_an_engine_lost_and_started_again_keeps_the_order() -> None:
    rng = np.random.default_rng(4)
    a = numbers(rng, (9, 50), torch.float32, False)
    b = numbers(rng, (50, 9), torch.float32, False)
    with opened("scalesim_ws", numerics="bit_accurate") as session:
        shmgemm.gemm(a, b)
        os.kill(session.core.engine_pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while session.core.engine_pid and time.monotonic() < deadline:
            time.sleep(0.01)
        assert_same(shmgemm.gemm(a, b), in_order(wide(a), wide(b), ROWS))
        assert session.stats()["engine_starts"] == 2


def test_results_say_how_they_were_summed(tmp_path: Path) -> None:
    with opened("scalesim_ws", numerics="bit_accurate") as session, shmgemm.profile() as prof:
        shmgemm.gemm(torch.ones(2, 3), torch.ones(3, 4))
        assert session.stats()["numerics"] == "bit_accurate"
    with prof.to_csv(tmp_path / "ops.csv").open(newline="") as file:
        assert [row["Numerics"] for row in csv.DictReader(file)] == ["bit_accurate"]
    assert prof.to_dict()["machines"][0]["numerics"] == "bit_accurate"
    trace = json.loads(prof.to_chrome_trace(tmp_path / "trace.json").read_text())
    assert trace["otherData"]["numerics"] == "bit_accurate"


@pytest.mark.parametrize("value", ["exact", "", "BIT_ACCURATE", 1, ["fast"]])
def test_a_value_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"argument numerics = .* expected fast or bit_accurate"):
        shmgemm.open(numerics=value)


def test_from_environment_and_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "shmgemm.toml"
    config.write_text('[session]\nnumerics = "bit_accurate"\n')
    monkeypatch.setenv("SHMGEMM_CONFIG", str(config))
    monkeypatch.delenv("SHMGEMM_NUMERICS", raising=False)
    with opened("scalesim_os") as session:
        assert session.numerics == "bit_accurate"
    monkeypatch.setenv("SHMGEMM_NUMERICS", "fast")
    with opened("scalesim_os") as session:
        assert session.numerics == "fast"
    monkeypatch.setenv("SHMGEMM_NUMERICS", "slow")
    with pytest.raises(ValueError, match="SHMGEMM_NUMERICS = 'slow': expected fast or bit_acc"):
        opened("scalesim_os")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text("import torch\ntorch.nn.Linear(5, 3)(torch.ones(2, 5))\n")
    words = ["run", "--hardware", "tiny_4x4_ws", "--json", "--out", str(tmp_path)]
    assert cli.main([*words, "--numerics", "bit_accurate", str(script)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["machines"][0]["numerics"] == "bit_accurate"
    assert "bit_accurate numerics" in printed.err
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--numerics", "exact", str(script)])
    assert end.value.code == 2
    assert "invalid choice: 'exact'" in capsys.readouterr().err


@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
def test_systolic_adds_what_leaves_the_array(dataflow: str) -> None:
    """Sums that stay leave at the end of a step, others after `rows` terms."""
    m, n, k = 9, 11, 700
    hardware = {"model": "systolic", "dataflow": dataflow, "rows": ROWS, "cols": COLS}
    hardware |= {"scratchpad_a": "2KiB", "scratchpad_b": "2KiB", "accumulator": "1KiB"}
    random = np.random.default_rng(5)
    a, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((m, k), (k, n)))
    with shmgemm.open(hardware=hardware, numerics="bit_accurate", region=32 << 20) as session:
        found = shmgemm.gemm(a, b)
        step = _core.map_gemm(session.hardware.parameters, m, n, k)["tile"][2]
    assert ROWS < step < k
    length = step if dataflow == "os" else ROWS
    other = ROWS if dataflow == "os" else step
    assert np.array_equal(found, in_order(a, b, length))
    assert not np.array_equal(found, in_order(a, b, other))
