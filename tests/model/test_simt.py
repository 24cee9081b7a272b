"""The GPU-like model against a loop over waves and steps in fractions, at sizes of real devices.

The tiles that blocks of a wave share are counted by placing the blocks.

(tests/model/test_simt.cpp steps small devices cycle by cycle.) And more bandwidth is never slower.
"""

from __future__ import annotations

import math
from fractions import Fraction
from operator import mul
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shmgemm import _core

DEVICES = st.fixed_dictionaries(
    {
        "clock": st.sampled_from([940_000_000, 1_000_000_000, 1_530_000_000, 999_999_937]),
        "cores": st.sampled_from([1, 80, 108, 128]) | st.integers(1, 300),
        "memory_bw": st.integers(10**9, 5 * 10**12),
        "macs_per_core": st.sampled_from([64, 512, 1024]) | st.integers(1, 2000),
        "tile_m": st.sampled_from([64, 128, 256]) | st.integers(1, 300),
        "tile_n": st.sampled_from([64, 128, 256]) | st.integers(1, 300),
        "tile_k": st.sampled_from([16, 32, 64]) | st.integers(1, 100),
        "dispatch": st.integers(0, 5000),
    }
)
SHAPES = st.tuples(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3000))
UNITS = {"clock": "Hz", "memory_bw": "B/s"}


def simulate(device: dict[str, int], *shape: int, input_bytes: int = 4) -> dict[str, Any]:
    parameters = {name: f"{value}{UNITS.get(name, '')}" for name, value in device.items()}
    parameters["model"] = "simt"
    return _core.simulate_gemm(parameters, *shape, input_bytes=input_bytes)


def tiles_of(grid: tuple[int, int], lines: tuple[int, int], blocks: int) -> tuple[int, int]:
    """Distinct tiles of A and B that the blocks of a wave need, of all patches the one of least."""
    whole, rest = divmod(blocks, grid[0] * grid[1])
    best = (0, 0)
    for width in range(1, min(grid[1], rest) + 1):
        placed = [divmod(block, width) for block in range(rest)]
        rows, columns = ({block[axis] for block in placed} for axis in (0, 1))
        if len(rows) > grid[0]:
            continue
        tiles = (len(rows), len(columns))
        best = min(best if any(best) else tiles, tiles, key=lambda t: (sum(map(mul, t, lines)), t))
    return best[0] + whole * grid[0], best[1] + whole * grid[1]


def expected(
    device: dict[str, int], m: int, n: int, k: int, batch: int, size: int
) -> tuple[int, int, int]:
    """Cycles, bytes of A and bytes of B read from memory."""

    def tile(name: str, extent: int) -> int:
        return min(device[name], -(-extent // 16) * 16)

    rows, columns, depth = tile("tile_m", m), tile("tile_n", n), tile("tile_k", k)
    height, width = min(rows, m), min(columns, n)
    grid = (len(range(0, m, rows)), len(range(0, n, columns)))
    blocks = grid[0] * grid[1] * batch
    work = math.ceil(Fraction(rows * columns * depth, device["macs_per_core"]))
    bandwidth = Fraction(device["memory_bw"], device["clock"])  # bytes a cycle
    time, loaded = device["dispatch"], [0, 0]
    known: dict[int, tuple[int, tuple[int, int]]] = {}
    while blocks > 0:
        active = min(blocks, device["cores"])
        blocks -= active
        if active not in known:
            tiles = tiles_of(grid, (height, width), active)
            lines = tiles[0] * height + tiles[1] * width
            parts = [min(depth, k - first) for first in range(0, k, depth)]
            loads = [math.ceil(lines * part * size / bandwidth) for part in parts]
            behind = [*loads[1:], 0]
            store = math.ceil(active * height * width * 4 / bandwidth)
            wave = loads[0] + sum(max(work, load) for load in behind) + store
            known[active] = (wave, tiles)
        time += known[active][0]
        loaded = [so_far + more for so_far, more in zip(loaded, known[active][1], strict=True)]
    # All tiles of an operand are loaded as often as each other, those at the edge are smaller.
    a, b = (
        math.ceil(Fraction(t * extent, g))
        for t, extent, g in zip(loaded, (m, n), grid, strict=True)
    )
    return time, a * k * size, b * k * size


@given(DEVICES, SHAPES, st.integers(1, 4), st.sampled_from([1, 2, 4]))
def test_equals_a_loop_over_waves_and_steps(
    device: dict[str, int], shape: tuple[int, int, int], batch: int, size: int
) -> None:
    report = simulate(device, *shape, batch, input_bytes=size)
    read = report["read_bytes"][1]
    assert (report["cycles"], *read[:2]) == expected(device, *shape, batch, size)
    parts = ("busy", "fill_drain", "memory_stall", "dispatch")
    assert report["cycles"] == sum(report[f"{part}_cycles"] for part in parts)
    assert 0 < report["compute_utilization"] <= report["mapping_efficiency"] <= 1


@given(DEVICES, SHAPES, st.integers(1, 4), st.integers(1, 10**12))
def test_more_bandwidth_is_never_slower(
    device: dict[str, int], shape: tuple[int, int, int], batch: int, more: int
) -> None:
    faster = {**device, "memory_bw": device["memory_bw"] + more}
    assert simulate(faster, *shape, batch)["cycles"] <= simulate(device, *shape, batch)["cycles"]


@given(DEVICES, SHAPES)
def test_the_peak_and_the_bandwidth_are_bounds(
    device: dict[str, int], shape: tuple[int, int, int]
) -> None:
    m, n, k = shape
    report = simulate(device, *shape)
    assert report["cycles"] * device["cores"] * device["macs_per_core"] >= m * n * k
    moved = sum(map(sum, (report["read_bytes"][1], report["write_bytes"][1])))
    assert moved >= 4 * (m * k + k * n + m * n)
    assert Fraction(moved * device["clock"], device["memory_bw"]) <= report["cycles"]
