"""A real model with its linear layers on the device, against itself on plain torch."""

from __future__ import annotations

import os

from .harness import Row, progress, run_python, specs


def run(quick: bool = False) -> list[Row]:
    """All rows of [model] in goals.toml."""
    threads = {"all_cpus": len(os.sched_getaffinity(0)), "one_thread": 1}
    return [_minilm_row(key, count, quick) for key, count in threads.items()]


def _minilm_row(key: str, threads: int, quick: bool) -> Row:
    """Both models get `threads` threads to compute with."""
    spec = specs("model")[f"minilm_{key}"]
    progress(f"model: {spec.name}")
    options = {"threads": threads, "rounds": 2 if quick else 11, "samples": 2 if quick else 15}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    found = run_python("shmgemm.bench.minilm", *words)
    p50, p99 = found["ours"]
    return spec.row(p50, p99, found["plain"][0])
