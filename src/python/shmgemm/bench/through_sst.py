"""`shmgemm bench ... --engine sst`: SST beside the embedded engine, or beside a bench's floor."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .harness import Row, measure, progress, specs

_ROUNDS = 5
_PRODUCTS = {"float32_64": 500, "float32_256": 100, "float32_1024": 10}  # samples of a round


def latency(quick: bool = False) -> list[Row]:
    """All rows of [sst] in goals.toml."""
    rounds = 1 if quick else _ROUNDS
    return [
        *_commands(rounds, 20 if quick else 1),
        *gemm(quick),
        _timing(rounds, 2000 if quick else 20000),
        *_idle(0.5 if quick else 10.0),
    ]


def gemm(quick: bool = False) -> list[Row]:
    """The products among the rows of [sst]."""
    rounds = 1 if quick else _ROUNDS
    return [_product(key, rounds, 2 if quick else samples) for key, samples in _PRODUCTS.items()]


def same(run: Callable[[bool], list[Row]], quick: bool = False) -> list[Row]:
    """What `run` measures through the default engine, with SST as that."""
    before = os.environ.get("SHMGEMM_ENGINE")
    os.environ["SHMGEMM_ENGINE"] = "sst"
    try:
        return run(quick)
    finally:
        del os.environ["SHMGEMM_ENGINE"]
        if before is not None:
            os.environ["SHMGEMM_ENGINE"] = before


def _both(subject: str, rounds: int, **options: int) -> tuple[float, float]:
    """Medians through SST and through the embedded engine, which take turns."""
    found: dict[str, list[float]] = {"sst": [], "embedded": []}
    for _ in range(rounds):
        for engine, medians in found.items():
            ours = measure(subject, None, engine, rounds=1, **options)["ours"]
            assert ours is not None
            medians.append(ours.p50)
    return statistics.median(found["sst"]), statistics.median(found["embedded"])


def _commands(rounds: int, less: int) -> Iterator[Row]:
    rows = specs("sst")
    progress(f"through SST: {rows['noop_hot'].name}")
    ours, embedded = _both("noop-hot", rounds, samples=20000 // less)
    yield rows["noop_hot"].row(ours, None, embedded)
    yield rows["noop_above_embedded"].row(ours - embedded)
    progress(f"through SST: {rows['commands_16'].name}")
    ours, embedded = _both("commands", rounds, samples=100000 // less, depth=16)
    yield rows["commands_16"].row(ours, None, embedded)


def _product(key: str, rounds: int, samples: int) -> Row:
    row = specs("sst")[key]
    progress(f"through SST: {row.name}")
    size = int(key.rpartition("_")[2])
    ours, embedded = _both("product", rounds, samples=samples, m=size, n=size, k=size)
    return row.row(ours / 1e3, None, embedded / 1e3)


_CONFIGURATION = """
import sst

sst.Component("engine", "shmgemm.HostPort").addParam("host", "none")
device = sst.Component("device", "shmgemm.GemmDevice")
device.addParams({hardware!r})
source = sst.Component("source", "shmgemm.CommandSource")
source.addParams({{"file": {csv!r}, "repeat": {repeat}}})
sst.Link("commands").connect((source, "device", "1ns"), (device, "commands", "1ns"))
"""


def _timing(rounds: int, products: int) -> Row:
    """Two runs of `sst`, of which the difference counts: its start is not what is measured."""
    from .. import _core, hardware, sst

    row = specs("sst")["timing_tpu_v3"]
    progress(f"through SST: {row.name}")
    parameters = hardware.load("tpu_v3").parameters
    cycles = _core.simulate_gemm(parameters, 1024, 1024, 1024)["cycles"]
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "gemms.csv"
        csv.write_text("name, M, N, K\nproduct, 1024, 1024, 1024\n")

        def seconds(repeat: int) -> float:
            file = Path(folder) / "system.py"
            file.write_text(_CONFIGURATION.format(hardware=parameters, csv=str(csv), repeat=repeat))
            library = f"--add-lib-path={sst.library_folder()}"
            begin = time.perf_counter()
            subprocess.run(
                [sst.find().executable, library, str(file)], check=True, capture_output=True
            )
            return time.perf_counter() - begin

        for _ in range(rounds):
            rates.append((products - 1) * cycles / 1e6 / (seconds(products) - seconds(1)))
    return row.row(statistics.median(rates))


def _idle(seconds: float) -> Iterator[Row]:
    import shmgemm

    from .latency import _cpu_ns

    rows = specs("sst")
    progress("through SST: doing nothing")
    with shmgemm.open(engine="sst", strict=True) as session:
        session.core.noop()
        time.sleep(0.3)
        cycles = session.info()["now_cycles"]
        used, begin = _cpu_ns(session.core.engine_pid), time.perf_counter_ns()
        time.sleep(seconds)
        used = _cpu_ns(session.core.engine_pid) - used
        yield rows["idle_cpu"].row(100 * used / (time.perf_counter_ns() - begin))
        yield rows["idle_cycles"].row(session.info()["now_cycles"] - cycles)
