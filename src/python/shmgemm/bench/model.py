"""A real model with its linear layers on the device, against itself on plain torch.

And how many cycles a second the timing models simulate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from .. import _core, hardware
from .harness import Row, progress, run_python, specs


def run(quick: bool = False) -> list[Row]:
    """All rows of [model] in goals.toml."""
    threads = {"all_cpus": len(os.sched_getaffinity(0)), "one_thread": 1}
    rows = [_minilm_row(key, count, quick) for key, count in threads.items()]
    return [*rows, *_timing(0.05 if quick else 0.5)]


def _minilm_row(key: str, threads: int, quick: bool) -> Row:
    """Both models get `threads` threads to compute with."""
    spec = specs("model")[f"minilm_{key}"]
    progress(f"model: {spec.name}")
    options = {"threads": threads, "rounds": 2 if quick else 11, "samples": 2 if quick else 15}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    found = run_python("shmgemm.bench.minilm", *words)
    p50, p99 = found["ours"]
    return spec.row(p50, p99, found["plain"][0])


def _timing(seconds: float) -> Iterator[Row]:
    rows = specs("model")
    progress("model: timing models")
    rates = {name: _cycles_per_second(name, seconds) / 1e6 for name in hardware.presets()}
    yield rows["cycles_tpu_v3"].row(rates["tpu_v3"])
    yield rows["cycles_slowest"].row(min(rates.values()))


def _cycles_per_second(preset: str, seconds: float) -> float:
    """Of the timing model alone, over products of a transformer's sizes."""
    parameters = hardware.load(preset).parameters
    shapes = ((128, 384, 384), (128, 1536, 384), (128, 384, 1536), (1024, 1024, 1024))
    cycles, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for m, n, k in shapes:
            cycles += int(_core.simulate_gemm(parameters, m, n, k)["cycles"])
    return cycles / elapsed
