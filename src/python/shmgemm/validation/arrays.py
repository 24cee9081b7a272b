"""The models of an array against the register-level array, which moves values from PE to PE.

`systolic` without a memory to wait for must take the very cycles of the array, for tiles of every
edge size and products of many array tiles, in every dataflow. `ws_double_buffered` is another
machine on the same instructions (weights, then up to `rows` rows of A): it fetches its first
weights, and a partial tile costs it a full one; its differences are shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import _core
from . import Options

DATAFLOWS = ("ws", "is", "os")
_MOST_SIDE = 24
_LEAST_INSTRUCTION = 4  # rows of A that an instruction of ws_double_buffered takes at least
_ROOM = "1MiB"  # of each scratchpad: a product is one step


def run(options: Options) -> dict[str, Any]:
    """Seeded products; per model and dataflow the cases, those equal, and errors in percent."""
    rng = random.Random(options.seed)
    options.progress(f"arrays: {options.cases} products on the register-level array")
    cases = [_draw(rng) for _ in range(options.cases)]
    instructions = [
        ("ws", rows, rows, m, n, k)
        for dataflow, rows, _, m, n, k in cases
        if dataflow == "ws" and rows >= _LEAST_INSTRUCTION
    ]
    return {
        "seed": options.seed,
        "systolic": _compare("systolic", cases, _tiles),
        "ws_double_buffered": _compare("ws_double_buffered", instructions, _instructions),
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


def _parameters(model: str, dataflow: str, rows: int, cols: int) -> dict[str, str]:
    parameters = {"model": model, "dataflow": dataflow, "rows": str(rows), "cols": str(cols)}
    if model == "systolic":
        parameters |= {"memory": "ideal", "dispatch": "0"}
        parameters |= dict.fromkeys(("scratchpad_a", "scratchpad_b", "accumulator"), _ROOM)
    return parameters


def _tiles(
    dataflow: str, rows: int, cols: int, m: int, n: int, k: int
) -> Iterator[tuple[int, int, int]]:
    """Array tiles (m, n, k) of `systolic`: steps of K, in each column groups, then row groups."""
    mapping = _core.map_gemm(_parameters("systolic", dataflow, rows, cols), m, n, k)
    assert mapping["blocks"] == 1, "the scratchpads hold every case"
    for _, terms in _pieces(k, mapping["tile"][2]):
        if dataflow == "ws":
            for _, width in _pieces(n, cols):
                for _, height in _pieces(terms, rows):
                    yield m, width, height
        elif dataflow == "is":
            for _, width in _pieces(m, cols):
                for _, height in _pieces(terms, rows):
                    yield width, n, height
        else:
            for _, width in _pieces(n, cols):
                for _, height in _pieces(m, rows):
                    yield height, width, terms


def _instructions(
    dataflow: str, rows: int, cols: int, m: int, n: int, k: int
) -> Iterator[tuple[int, int, int]]:
    """Array tiles of `ws_double_buffered`: for each tile of weights the pieces of A."""
    assert (dataflow, rows) == ("ws", cols)
    for _, width in _pieces(n, cols):
        for _, height in _pieces(k, rows):
            for _, length in _pieces(m, rows):
                yield length, width, height


def _pieces(whole: int, side: int) -> Iterator[tuple[int, int]]:
    return ((start, min(side, whole - start)) for start in range(0, whole, side))


def _compare(
    model: str,
    cases: list[Case],
    array_tiles: Callable[[str, int, int, int, int, int], Iterator[tuple[int, int, int]]],
) -> dict[str, Any]:
    errors, mismatches = [], []
    for case in cases:
        dataflow, rows, cols, m, n, k = case
        expected = _core.step_array(dataflow, rows, cols, list(array_tiles(*case)))
        cycles = int(
            _core.simulate_gemm(_parameters(model, dataflow, rows, cols), m, n, k)["cycles"]
        )
        errors.append(100 * (cycles / expected - 1))
        if cycles != expected:
            shape = f"{m}x{n}x{k} on {rows}x{cols} {dataflow}"
            mismatches.append(f"{shape}: array {expected}, {model} {cycles}")
    return {
        "cases": len(cases),
        "equal": len(cases) - len(mismatches),
        "mae": sum(map(abs, errors)) / len(errors) if errors else 0.0,
        "max_error": max(map(abs, errors), default=0.0),
        "mismatches": mismatches[:10],
    }
