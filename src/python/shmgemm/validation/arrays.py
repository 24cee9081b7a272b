"""The models of an array against the register-level array, which moves values from PE to PE.

`systolic` without a memory to wait for must take the very cycles of the array, for tiles of every
edge size and products of many array tiles, in every dataflow. `ws_double_buffered` is another
machine (it fetches its first weights, and issues at least four rows); its differences are shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from .. import _core
from . import Options

DATAFLOWS = ("ws", "is", "os")
_MOST_SIDE = 24
_ROOM = "1MiB"  # of each scratchpad: a product is one step


def run(options: Options) -> dict[str, Any]:
    """Seeded products; per model and dataflow the cases, those equal, and errors in percent."""
    rng = random.Random(options.seed)
    cases = [_draw(rng) for _ in range(options.cases)]
    options.progress(f"arrays: {options.cases} products on the register-level array")
    stepped = [_stepped(*case) for case in cases]
    return {
        "seed": options.seed,
        "systolic": _compare("systolic", cases, stepped),
        "ws_double_buffered": _compare(
            "ws_double_buffered",
            [case for case in cases if case[0] == "ws"],
            [cycles for case, cycles in zip(cases, stepped, strict=True) if case[0] == "ws"],
        ),
    }


def passed(result: dict[str, Any]) -> bool:
    found = result["systolic"]
    return bool(found["cases"] and found["equal"] == found["cases"])


def table(result: dict[str, Any]) -> Iterable[str]:
    yield (
        "Register-level array: products of up to three array tiles a side, every edge size (seed"
        f" {result['seed']})"
    )
    yield f"{'model':<20} {'equal':>12} {'mean |error| %':>15} {'largest %':>10}"
    for model in ("systolic", "ws_double_buffered"):
        found = result[model]
        equal = f"{found['equal']}/{found['cases']}"
        yield f"{model:<20} {equal:>12} {found['mae']:>15.2f} {found['max_error']:>10.2f}"
    for bad in result["systolic"]["mismatches"]:
        yield f"differs: {bad}"


Case = tuple[str, int, int, int, int, int]  # dataflow, rows, cols, m, n, k


def _draw(rng: random.Random) -> Case:
    dataflow = rng.choice(DATAFLOWS)
    rows, cols = rng.randint(1, _MOST_SIDE), rng.randint(1, _MOST_SIDE)
    limits = {
        "ws": (256, 3 * cols, 3 * rows),
        "is": (3 * cols, 256, 3 * rows),
        "os": (3 * rows, 3 * cols, 256),
    }
    m, n, k = (rng.randint(1, limit) for limit in limits[dataflow])
    return dataflow, rows, cols, m, n, k


def _stepped(dataflow: str, rows: int, cols: int, m: int, n: int, k: int) -> int:
    return _core.step_array(dataflow, rows, cols, list(_tiles(dataflow, rows, cols, m, n, k)))


def _tiles(
    dataflow: str, rows: int, cols: int, m: int, n: int, k: int
) -> Iterator[tuple[int, int, int]]:
    """Array tiles (m, n, k) in the model's order: column groups, in each the row groups."""
    if dataflow == "ws":
        for _, width in _pieces(n, cols):
            for _, height in _pieces(k, rows):
                yield m, width, height
    elif dataflow == "is":
        for _, width in _pieces(m, cols):
            for _, height in _pieces(k, rows):
                yield width, n, height
    else:
        for _, width in _pieces(n, cols):
            for _, height in _pieces(m, rows):
                yield height, width, k


def _pieces(whole: int, side: int) -> Iterator[tuple[int, int]]:
    return ((start, min(side, whole - start)) for start in range(0, whole, side))


def _compare(model: str, cases: list[Case], stepped: list[int]) -> dict[str, Any]:
    errors, mismatches = [], []
    for case, expected in zip(cases, stepped, strict=True):
        cycles = _modelled(model, *case)
        errors.append(100 * (cycles / expected - 1))
        if cycles != expected:
            dataflow, rows, cols, m, n, k = case
            shape = f"{m}x{n}x{k} on {rows}x{cols} {dataflow}"
            mismatches.append(f"{shape}: array {expected}, {model} {cycles}")
    return {
        "cases": len(cases),
        "equal": len(cases) - len(mismatches),
        "mae": sum(map(abs, errors)) / len(errors) if errors else 0.0,
        "max_error": max(map(abs, errors), default=0.0),
        "mismatches": mismatches[:10],
    }


def _modelled(model: str, dataflow: str, rows: int, cols: int, m: int, n: int, k: int) -> int:
    parameters = {"model": model, "dataflow": dataflow, "rows": str(rows), "cols": str(cols)}
    if model == "systolic":
        parameters |= {"memory": "ideal", "dispatch": "0"}
        parameters |= dict.fromkeys(("scratchpad_a", "scratchpad_b", "accumulator"), _ROOM)
    return int(_core.simulate_gemm(parameters, m, n, k)["cycles"])
