"""The same calls give the same cycles and the same bits: run after run, on an idle and on a loaded
machine, with one thread and with several."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import shmgemm

SHAPES = ((1, 64, 64), (37, 129, 300), (256, 256, 256), (5, 7, 9))
RUNS = 50  # idle, and as many loaded


def spin(stop: multiprocessing.synchronize.Event) -> None:
    while not stop.is_set():
        sum(range(10_000))


@contextmanager
def loaded_machine() -> Iterator[None]:
    """Two busy processes for every CPU."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    count = 2 * len(os.sched_getaffinity(0))
    processes = [context.Process(target=spin, args=(stop,), daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        stop.set()
        for process in processes:
            process.join()


def one_run() -> tuple[list[tuple[int, ...]], str]:
    """Each op's length and how it was spent, and a digest of all results."""
    random = np.random.default_rng(7)
    digest = hashlib.sha256()
    with shmgemm.profile() as profile:
        for m, n, k in SHAPES:
            a = random.standard_normal((m, k), dtype=np.float32)
            b = random.standard_normal((k, n), dtype=np.float32)
            digest.update(np.asarray(shmgemm.gemm(a, b)).tobytes())
    spent = [
        (r.cycles, r.busy_cycles, r.fill_drain_cycles, r.memory_stall_cycles, r.memory_bytes)
        for r in profile.records
    ]
    return spent, digest.hexdigest()


@pytest.mark.parametrize("preset", ["tpu_v3", "gemmini"])
def test_runs_are_alike_idle_and_loaded(preset: str) -> None:
    with shmgemm.open(hardware=preset, region="32MiB"):
        first = one_run()
        assert all(cycles > 0 for cycles, *_ in first[0])
        assert [one_run() for _ in range(RUNS - 1)] == [first] * (RUNS - 1)
        with loaded_machine():
            assert [one_run() for _ in range(RUNS)] == [first] * RUNS


def test_threads_change_nothing() -> None:
    found = []
    for threads in (1, 2, 3):
        with shmgemm.open(threads=threads, region="32MiB"):
            found.append(one_run())
    assert found == found[:1] * 3


def test_absolute_times_are_alike() -> None:
    starts = []
    for _ in range(3):
        with shmgemm.open(region="32MiB"), shmgemm.profile() as profile:
            for m, n, k in SHAPES:
                shmgemm.gemm(np.ones((m, k), np.float32), np.ones((k, n), np.float32))
        starts.append([(r.start_cycles, r.end_cycles) for r in profile.records])
    assert starts == starts[:1] * 3
    ends = [end for _, end in starts[0]]
    assert [start for start, _ in starts[0]] == [0, *ends[:-1]]
