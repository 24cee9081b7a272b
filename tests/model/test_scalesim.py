"""The closed forms through the bindings, against the figures published for SCALE-Sim 3.0.0."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmgemm import _core

# rows, cols, M, N, K, then Total Cycles of SCALE-Sim 3.0.0 for os, ws, is (None: not published).
PUBLISHED = [
    (4, 4, 4, 4, 4, 9, 13, 13),
    (4, 4, 5, 7, 9, 59, 89, 101),
    (8, 4, 33, 17, 65, 1874, 2294, 2834),
    (16, 16, 33, 17, 65, 569, 789, 944),
    (16, 16, 1, 64, 64, 375, 751, 439),
    (16, 16, 64, 64, 64, 1503, 1759, 1759),
    (32, 32, 256, 256, 256, 20351, 22399, None),
]
CASES = [
    (dataflow, row[:2], row[2:5], cycles)
    for row in PUBLISHED
    for dataflow, cycles in zip(("os", "ws", "is"), row[5:], strict=True)
    if cycles is not None
]
DATAFLOWS = st.sampled_from(("os", "ws", "is"))
SIZES = st.integers(1, 40)


def hardware(dataflow: str, rows: int, cols: int) -> dict[str, str]:
    return {"model": f"scalesim_{dataflow}", "rows": str(rows), "cols": str(cols)}


@pytest.mark.parametrize(("dataflow", "array", "shape", "cycles"), CASES)
def test_published_cycles(
    dataflow: str, array: tuple[int, int], shape: tuple[int, int, int], cycles: int
) -> None:
    assert _core.simulate_gemm(hardware(dataflow, *array), *shape)["cycles"] == cycles


@given(DATAFLOWS, SIZES, SIZES, SIZES, SIZES, SIZES, st.integers(1, 5))
def test_a_report_is_consistent(
    dataflow: str, rows: int, cols: int, m: int, n: int, k: int, batch: int
) -> None:
    report = _core.simulate_gemm(hardware(dataflow, rows, cols), m, n, k, batch)
    kinds = ("busy_cycles", "fill_drain_cycles", "memory_stall_cycles", "dispatch_cycles")
    assert sum(report[kind] for kind in kinds) == report["cycles"]
    assert report["macs"] == m * n * k * batch
    assert report["peak_macs_per_cycle"] == rows * cols
    # The tool's last cycle is not counted, once for each batch entry.
    assert report["macs"] <= (report["cycles"] + batch) * rows * cols
    assert 0 < report["compute_utilization"] <= report["mapping_efficiency"] <= 1
    assert report["read_bytes"][1][:2] == [4 * m * k * batch, 4 * k * n * batch]
    assert report["write_bytes"][1] == [0, 0, 4 * m * n * batch, 0]


@given(SIZES, SIZES, SIZES, SIZES)
def test_input_stationary_is_weight_stationary_transposed(
    size: int, m: int, n: int, k: int
) -> None:
    """C = A B and its transpose are the same work with A and B in each other's place."""
    one = _core.simulate_gemm(hardware("is", size, size + 1), m, n, k)
    other = _core.simulate_gemm(hardware("ws", size, size + 1), n, m, k)
    assert one["cycles"] == other["cycles"]
    assert one["read_bytes"][0][:2] == other["read_bytes"][0][1::-1]


def test_utilization_of_a_full_array() -> None:
    report = _core.simulate_gemm(hardware("os", 16, 16), 64, 64, 64)
    assert report["mapping_efficiency"] == 1
    assert math.isclose(report["compute_utilization"], 64 / (16 + 16 + 64 - 2))


def test_element_sizes_scale_the_traffic_alone() -> None:
    wide = _core.simulate_gemm({}, 5, 7, 9)
    narrow = _core.simulate_gemm({}, 5, 7, 9, input_bytes=1, output_bytes=4)
    assert narrow["cycles"] == wide["cycles"]
    assert narrow["read_bytes"][1] == [size // 4 for size in wide["read_bytes"][1]]
    assert narrow["write_bytes"] == wide["write_bytes"]


@pytest.mark.parametrize("bad", [0, -1, 2**32])
@pytest.mark.parametrize("place", range(4))
def test_dimensions_have_a_range(place: int, bad: int) -> None:
    shape = [1, 1, 1, 1]
    shape[place] = bad
    with pytest.raises(ValueError, match=rf"{'mnkb'[place]}\w* = {bad}: .* 1 to 4294967295"):
        _core.simulate_gemm({}, *shape)


def test_a_figure_that_does_not_fit_is_an_error_not_a_wrap() -> None:
    largest = 2**32 - 1
    with pytest.raises(OverflowError, match=r"M=4294967295 .* exceed 2\^63 - 1"):
        _core.simulate_gemm({}, largest, largest, largest)
    assert _core.simulate_gemm(hardware("os", 1, 1), largest, 1, 1)["cycles"] == largest - 1


def test_bad_hardware_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r'row = "4": unknown parameter; did you mean "rows"'):
        _core.simulate_gemm({"row": "4"}, 1, 1, 1)


def test_models_describe_themselves() -> None:
    models = {info.name: info for info in _core.models()}
    assert {"scalesim_os", "scalesim_ws", "scalesim_is"} <= models.keys()
    rows = next(p for p in models["scalesim_ws"].parameters if p.name == "rows")
    assert (rows.default, rows.minimum, rows.maximum) == ("128", 1, 65536)
    assert rows.legal == "from 1 to 65536"
    clock = next(p for p in _core.device_parameters() if p.name == "clock")
    assert clock.unit == "Hz"
    dataflow = next(p for p in models["systolic"].parameters if p.name == "dataflow")
    assert dataflow.choices == ["os", "ws", "is"]


def test_parse_quantity() -> None:
    assert _core.parse_quantity("region", "256MiB", "bytes") == 256 << 20
    with pytest.raises(ValueError, match=r'region = "1Mib": unknown unit "Mib"'):
        _core.parse_quantity("region", "1Mib", "bytes")
    with pytest.raises(ValueError, match="unknown unit"):
        _core.parse_quantity("region", "1", "furlongs")
