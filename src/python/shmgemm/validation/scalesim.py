"""`shmgemm sim`'s files against those of SCALE-Sim 3.0.0, value by value.

Seeded random layers, dimensions log-uniform from 1 to 512 with the array's edges forced, all three
dataflows, square, flat, tall and single-lane arrays, SRAMs that hold a layer and SRAMs that do not,
CALC bandwidth and, where everything fits, USER. SCALE-Sim simulates 2 to 13 thousand cycles a
second, so a layer that would take more than `MAX_CYCLES` cycles or `MAX_ACCESSES` SRAM accesses is
drawn anew.
"""

from __future__ import annotations

import csv
import math
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ShmgemmError
from ..scalesim import config, reports, topology
from ..scalesim.topology import Layer
from . import Options
from ._environment import python_with

REQUIREMENTS = ("scalesim==3.0.0", "numpy<2.1")
MAX_DIMENSION = 512
MAX_CYCLES = 100_000
MAX_ACCESSES = 1_000_000
RELATIVE_TOLERANCE = 1e-9  # of ratios, which are summed in another order; counts must be equal
_PROCESSES = 2
_LAYERS_PER_RUN = 10
_MIN_RUNS = 12
_ARRAYS = ((4, 4), (8, 4), (4, 8), (16, 16), (3, 5), (1, 8), (8, 1), (32, 32), (64, 16), (128, 128))
_SRAM_KB = (1, 2, 3, 8, 64)
_USER_SRAM_KB = 4096  # half of it is more words than MAX_ACCESSES
_SHOWN_MISMATCHES = 10

_CFG = """[general]
run_name = run
[run_presets]
InterfaceBandwidth = {mode}
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {cols}
IfmapSramSzkB = {ifmap_kb}
FilterSramSzkB = {filter_kb}
OfmapSramSzkB = {ofmap_kb}
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = {bandwidth}
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = {ifmap_bandwidth}
IfmapSRAMBankNum = 1
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = {filter_bandwidth}
FilterSRAMBankNum = 1
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = False
"""


@dataclass(frozen=True)
class Run:
    """One call of SCALE-Sim: a cfg and its layers, and what it costs there (accesses)."""

    cfg: str
    layers: tuple[Layer, ...]
    cost: int


def run(options: Options) -> dict[str, Any]:
    """Compare; `equal` counts the cases in which every column is."""
    runs = draw(options.cases, options.seed)
    python = python_with("scalesim-3.0.0", REQUIREMENTS, options.progress)
    with tempfile.TemporaryDirectory(prefix="shmgemm-validate-") as folder:
        folders = _write(Path(folder), runs)
        _run_theirs(python, folders, [r.cost for r in runs], options.progress)
        for each in folders:
            _run_ours(each)
        return _compare(folders, runs, options.seed)


def passed(result: dict[str, Any]) -> bool:
    return bool(result["cases"] and result["equal"] == result["cases"])


def table(result: dict[str, Any]) -> Iterable[str]:
    """Every column with the cases that agree and the largest difference; then what does not."""
    yield (
        f"SCALE-Sim 3.0.0: {result['equal']} of {result['cases']} layers equal in every column"
        f" (seed {result['seed']}, {result['total_cycles']} cycles; a layer: dimensions up to"
        f" {MAX_DIMENSION}, at most {MAX_CYCLES} cycles and {MAX_ACCESSES} SRAM accesses)"
    )
    yield f"{'column':<32} {'equal':>12} {'largest difference':>20}"
    for name, column in result["columns"].items():
        equal = f"{column['equal']}/{column['cases']}"
        yield f"{name:<32} {equal:>12} {column['max_error_percent']:>18.3g} %"
    for bad in result["mismatches"]:
        yield (
            f"differs: {bad['column']}: SCALE-Sim {bad['theirs']}, shmgemm {bad['ours']} for"
            f" {bad['layer']}, {bad['architecture']}"
        )


def draw(cases: int, seed: int) -> list[Run]:
    """Seeded runs with `cases` layers in all, of every dataflow and array shape in turn."""
    if cases < 1:
        raise ValueError(f"cases = {cases}: expected at least 1")
    rng = random.Random(seed)
    count = min(cases, max(_MIN_RUNS, math.ceil(cases / _LAYERS_PER_RUN)))
    sizes = [cases // count + (index < cases % count) for index in range(count)]
    arrays = rng.sample(_ARRAYS, len(_ARRAYS))
    return [
        _draw_run(
            rng, config.DATAFLOWS[index % 3], arrays[index % len(arrays)], index % 4 == 3, size
        )
        for index, size in enumerate(sizes)
    ]


def _draw_run(
    rng: random.Random, dataflow: str, array: tuple[int, int], user: bool, size: int
) -> Run:
    rows, cols = array
    # With USER bandwidth half of each SRAM must hold its operand, or stalls decide; C's need not
    # where DRAM takes what the array writes.
    sram = [_USER_SRAM_KB if user else rng.choice(_SRAM_KB) for _ in range(3)]
    bandwidth = rng.randint(1, 40)
    if user and bandwidth >= cols:
        sram[2] = rng.choice(_SRAM_KB)
    cfg = _CFG.format(
        mode="USER" if user else "CALC",
        rows=rows,
        cols=cols,
        ifmap_kb=sram[0],
        filter_kb=sram[1],
        ofmap_kb=sram[2],
        dataflow=dataflow,
        bandwidth=bandwidth,
        ifmap_bandwidth=rng.randint(1, 40),
        filter_bandwidth=rng.randint(1, 40),
    )
    layers: list[Layer] = []
    cost = 0
    while len(layers) < size:
        m, n, k = (_draw_dimension(rng, rows, cols) for _ in range(3))
        cycles, accesses = _work(dataflow, rows, cols, (m, n, k))
        if 0 < cycles <= MAX_CYCLES and accesses <= MAX_ACCESSES:
            layers.append(Layer(f"layer{len(layers)}", m, n, k))
            cost += cycles * (rows + 2 * cols) + 10 * accesses
    return Run(cfg, tuple(layers), cost)


def _draw_dimension(rng: random.Random, rows: int, cols: int) -> int:
    if rng.random() < 0.35:
        edges = {1, rows - 1, rows, rows + 1, 2 * rows, cols - 1, cols, cols + 1, 2 * cols + 1}
        return rng.choice(sorted(edge for edge in edges if edge >= 1))
    return min(MAX_DIMENSION, int(math.exp(rng.uniform(0, math.log(MAX_DIMENSION + 1)))))


def _work(dataflow: str, rows: int, cols: int, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Cycles and SRAM accesses, roughly: only to keep a case within its limits."""
    m, n, k = shape
    sizes = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}
    across_rows, across_cols, streamed = sizes[dataflow]
    folds = math.ceil(across_rows / rows) * math.ceil(across_cols / cols)
    cycles = folds * ((1 if dataflow == "os" else 2) * rows + cols + streamed - 2) - 1
    lanes = min(rows, across_rows) + min(cols, across_cols)
    return cycles, folds * (streamed * lanes + rows * cols)


def _write(parent: Path, runs: Sequence[Run]) -> list[Path]:
    folders = []
    for index, each in enumerate(runs):
        folder = parent / f"{index:04}"
        (folder / "theirs").mkdir(parents=True)
        (folder / "arch.cfg").write_text(each.cfg, encoding="utf-8")
        (folder / "layout.csv").write_text("Layer name,\n", encoding="utf-8")
        topology.write(folder / "gemm.csv", list(each.layers))
        folders.append(folder)
    return folders


def _run_theirs(
    python: Path, folders: Sequence[Path], costs: Sequence[int], progress: Callable[[str], None]
) -> None:
    """SCALE-Sim in a few processes with about the same work each."""
    shares: list[list[Path]] = [[] for _ in range(_PROCESSES)]
    loads = [0] * _PROCESSES
    for cost, folder in sorted(zip(costs, folders, strict=True), reverse=True):
        least = loads.index(min(loads))
        shares[least].append(folder)
        loads[least] += cost
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(f"SCALE-Sim: {done} of {len(folders)} runs")

    shares = [share for share in shares if share]
    processes = [_start(python, share) for share in shares]
    with ThreadPoolExecutor(len(processes)) as pool:
        try:
            list(pool.map(lambda process, share: _follow(process, share, count), processes, shares))
        finally:  # an interrupt, or one of them failed: the threads wait for the others
            for process in processes:
                process.kill()


def _start(python: Path, folders: Sequence[Path]) -> subprocess.Popen[str]:
    # -I: neither PYTHONPATH nor the runner's own folder, which has a scalesim of its own.
    runner = Path(__file__).with_name("_scalesim_runner.py")
    with _errors(folders).open("w") as errors:
        return subprocess.Popen(
            [str(python), "-I", str(runner), *map(str, folders)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=folders[0],
        )


def _errors(folders: Sequence[Path]) -> Path:
    return folders[0] / "stderr"


def _follow(
    process: subprocess.Popen[str], folders: Sequence[Path], count: Callable[[], None]
) -> None:
    """Wait for it, counting the runs it reports; ShmgemmError with its last lines if it failed."""
    assert process.stdout is not None
    names = set(map(str, folders))
    with process.stdout:
        for line in process.stdout:
            if line.strip() in names:
                count()
    if process.wait():
        last = "\n".join(_errors(folders).read_text(encoding="utf-8").splitlines()[-5:])
        raise ShmgemmError(f"SCALE-Sim ended with {process.returncode}:\n{last}")


def _run_ours(folder: Path) -> None:
    architecture = config.read(folder / "arch.cfg")
    layers = topology.read(folder / "gemm.csv")
    rows = reports.simulate(architecture, layers, reports.machine(architecture))
    reports.write(folder / "ours" / architecture.run_name, rows)


def _compare(folders: Sequence[Path], runs: Sequence[Run], seed: int) -> dict[str, Any]:
    columns: dict[str, dict[str, Any]] = {}
    mismatches: list[dict[str, Any]] = []
    equal = total_cycles = 0
    for folder, each in zip(folders, runs, strict=True):
        theirs, ours = (read_reports(folder / side / "run") for side in ("theirs", "ours"))
        if len(theirs) != len(each.layers) or len(ours) != len(each.layers):
            raise ShmgemmError(
                f"{len(each.layers)} layers: SCALE-Sim reported {len(theirs)}, shmgemm {len(ours)}"
            )
        for layer, their, our in zip(each.layers, theirs, ours, strict=True):
            differing = _differing(their, our, columns)
            equal += not differing
            total_cycles += int(their["Total Cycles"])
            mismatches += [
                {
                    "column": name,
                    "theirs": their[name],
                    "ours": our.get(name),
                    "layer": f"{layer.m}x{layer.n}x{layer.k}",
                    "architecture": _summary(each.cfg),
                }
                for name in differing
            ]
    return {
        "cases": sum(len(each.layers) for each in runs),
        "equal": equal,
        "columns": columns,
        "seed": seed,
        "total_cycles": total_cycles,
        "limits": {
            "dimension": MAX_DIMENSION,
            "cycles": MAX_CYCLES,
            "sram_accesses": MAX_ACCESSES,
            "relative_tolerance_of_ratios": RELATIVE_TOLERANCE,
        },
        "mismatches": mismatches[:_SHOWN_MISMATCHES],
    }


def _differing(
    theirs: dict[str, float], ours: dict[str, float], columns: dict[str, dict[str, Any]]
) -> list[str]:
    """The columns in which a layer differs; counts every column in `columns`."""
    names = []
    for name, value in theirs.items():
        column = columns.setdefault(name, {"cases": 0, "equal": 0, "max_error_percent": 0.0})
        error = abs(ours[name] - value) / max(abs(value), 1e-300) if ours[name] != value else 0.0
        is_ratio = name.endswith(("%", "BW"))
        same = error <= (RELATIVE_TOLERANCE if is_ratio else 0)
        column["cases"] += 1
        column["equal"] += same
        column["max_error_percent"] = max(column["max_error_percent"], 100 * error)
        if not same:
            names.append(name)
    return names


def read_reports(folder: Path) -> list[dict[str, float]]:
    """The three reports of one run: a layer's values by column name."""
    layers: list[dict[str, float]] = []
    for name in reports.COLUMNS:
        with (folder / name).open(newline="", encoding="utf-8") as file:
            for index, row in enumerate(csv.DictReader(file, skipinitialspace=True)):
                if index == len(layers):
                    layers.append({})
                layers[index] |= {
                    key: float(value) for key, value in row.items() if key and key != "LayerID"
                }
    return layers


def _summary(cfg: str) -> str:
    """What of a cfg decides a result, on one line."""
    keys = ("ArrayHeight", "ArrayWidth", "Dataflow", "SramSzkB", "Bandwidth")
    lines = (line for line in cfg.splitlines() if "=" in line)
    return ", ".join(
        line.replace(" = ", "=") for line in lines if any(key in line.split("=")[0] for key in keys)
    )
