"""What a command costs, from C++ and from Python, and what an idle device costs."""

from __future__ import annotations

import importlib.util
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .harness import Row, measure, percentile, progress, run_python, specs

_MB = 1e6


def run(quick: bool = False) -> list[Row]:
    """All rows of [latency] in goals.toml that can be measured here."""
    rows = [
        *_commands(quick),
        *_small_products(quick),
        *_losses(2 if quick else 7),
        *_idle(0.5 if quick else 4.0),
        *_cold_start(1 if quick else 5),
    ]
    order = [spec.name for spec in specs("latency").values()]
    return sorted(rows, key=lambda row: order.index(row.name))


def _commands(quick: bool) -> Iterator[Row]:
    rows = specs("latency")
    rounds = 2 if quick else 9
    for key, subject, samples in (
        ("noop_hot", "noop-hot", 20000),
        ("noop_one_cpu", "noop-one-cpu", 5000),
        ("noop_parked", "noop-parked", 100),
    ):
        progress(f"latency: {rows[key].name}")
        found = measure(subject, rounds=rounds, samples=samples // 20 if quick else samples)
        ours, floor = found["ours"], found["floor"]
        assert ours is not None
        assert floor is not None
        yield rows[key].row(ours.p50, ours.p99, floor.p50)
    for depth in (1, 16, 64):
        spec = rows[f"commands_{depth}"]
        progress(f"latency: {spec.name}")
        samples = 2000 if quick else 100000
        found = measure("commands", rounds=rounds, samples=samples, depth=depth)
        ours, floor = found["ours"], found["floor"]
        assert ours is not None
        assert floor is not None
        yield spec.row(ours.p50, None, floor.p50)


def _small_products(quick: bool) -> Iterator[Row]:
    rows = specs("latency")
    options = ["--rounds", "2" if quick else "9", "--samples", "100" if quick else "3000"]
    found = {}
    for op, switch in (("cpp", "1"), ("python", "0")):
        if op == "cpp" and importlib.util.find_spec("shmgemm._torch") is None:
            progress("latency: the C++ op was not built here; its rows are left out")
            continue
        progress(f"latency: shmgemm.gemm, {op} op")
        found[op] = run_python("shmgemm.bench.small_gemm", *options, SHMGEMM_TORCH_EXT=switch)
        for grad, suffix in (("no_grad", ""), ("grad", "_grad")):
            ours, floor = found[op][f"gemm{suffix}"], found[op][f"mm{suffix}"]
            yield rows[f"gemm_{op}_{grad}"].row(ours[0], ours[1], floor[0])
    progress("latency: the kernel alone")
    kernel = measure("kernel", m=32, n=256, k=128, rounds=5, samples=100 if quick else 2000)["ours"]
    assert kernel is not None
    whole = found["cpp" if "cpp" in found else "python"]["gemm_32"]
    yield rows["gemm_above_kernel"].row(whole[0] - kernel.p50, whole[1] - kernel.p50, kernel.p50)


def _losses(trials: int) -> Iterator[Row]:
    progress("latency: killing engines")
    taken = [_time_to_loss() * 1e3 for _ in range(trials)]
    yield specs("latency")["peer_kill"].row(percentile(taken, 0.5), percentile(taken, 0.99))


def _time_to_loss() -> float:
    """Seconds from SIGKILL in the middle of a product to the exception."""
    import torch

    import shmgemm

    killed_at = 0.0
    with shmgemm.open(strict=True) as session:
        a, b = (shmgemm.empty(4096, 4096).fill_(1.0) for _ in range(2))

        def kill() -> None:
            nonlocal killed_at
            killed_at = time.perf_counter()
            os.kill(session.core.engine_pid, signal.SIGKILL)

        timer = threading.Timer(0.1, kill)
        timer.start()
        try:
            with torch.no_grad():
                shmgemm.gemm(a, b)
        except shmgemm.DeviceLost:
            return time.perf_counter() - killed_at
        finally:
            timer.join()
    raise RuntimeError("the product ended before its engine was killed")


def _idle(seconds: float) -> Iterator[Row]:
    import torch

    import shmgemm

    rows = specs("latency")
    progress("latency: doing nothing")
    with shmgemm.open(strict=True) as session:
        a = shmgemm.empty(1024, 1024).fill_(1.0)
        result = shmgemm.gemm(a, a)
        torch.testing.assert_close(result, torch.full_like(result, 1024.0))
        time.sleep(0.3)
        pids = (os.getpid(), session.core.engine_pid)
        cycles = session.info()["now_cycles"]
        before, start = [_cpu_ns(pid) for pid in pids], time.perf_counter_ns()
        time.sleep(seconds)
        wall = time.perf_counter_ns() - start
        used = [_cpu_ns(pid) - then for pid, then in zip(pids, before, strict=True)]
        yield rows["idle_cpu"].row(100 * max(used) / wall)
        yield rows["idle_cycles"].row(session.info()["now_cycles"] - cycles)
        yield rows["engine_memory"].row(_private_bytes(session.core.engine_pid) / _MB)


def _cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process so far."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def _private_bytes(pid: int) -> int:
    """Resident memory without shared memory, which is the region."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = {line.split(":")[0]: line.split(":")[1].split() for line in lines}
    return sum(int(sizes[key][0]) * 1024 for key in ("RssAnon", "RssFile"))


def _cold_start(trials: int) -> Iterator[Row]:
    progress("latency: cold start")
    runs = [run_python("shmgemm.bench.cold_start") for _ in range(trials + 1)][1:]
    ours = [found["shmgemm_s"] for found in runs]
    floor = statistics.median(found["torch_s"] for found in runs)
    yield specs("latency")["cold_start"].row(statistics.median(ours), max(ours), floor)
