"""`shmgemm bench async`: products sent without waiting, in batches, pipelined, over two devices."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import shmgemm

from . import devices, overlap
from .harness import Row, interleaved, progress, specs
from .small_gemm import in_region

_M, _K, _N = 4, 8, 16
_DEPTHS = (1, 8, 64)
_BATCHES = (1, 8, 32)
_PARK_S = 0.05  # after which an engine without work sleeps


def run(quick: bool = False) -> list[Row]:
    """All rows of [async] in goals.toml that can be measured here."""
    with shmgemm.open(strict=True, threads=1) as session, torch.no_grad():
        a, b = (in_region(torch.randn(*shape)) for shape in ((_M, _K), (_K, _N)))
        small = [*_depths(a, b, quick), *_batches(a, b, quick), *_counters(session, a, b, quick)]
    return [*small, *overlap.rows(quick), *devices.rows(quick)]


def at_depth(a: Any, b: Any, depth: int, count: int) -> list[Any]:
    """`count` products A @ B with at most `depth` under way; the last `depth` of the results."""
    under_way: deque[Any] = deque()
    results: deque[Any] = deque(maxlen=depth)
    for _ in range(count):
        if len(under_way) == depth:
            results.append(under_way.popleft().result())
        under_way.append(shmgemm.gemm_async(a, b))
    results.extend(future.result() for future in under_way)
    return list(results)


def _check(results: list[torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> None:
    exact = a.double() @ b.double()
    for result in results:
        torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=1e-4)


def _depths(a: torch.Tensor, b: torch.Tensor, quick: bool) -> Iterator[Row]:
    """Thousands of ops a second."""
    progress("async: depths, beside blocking calls")
    count = 200 if quick else 2000
    calls: dict[str, Callable[[], object]] = {"blocking": lambda: _blocking(a, b, count)}
    for depth in _DEPTHS:
        _check(at_depth(a, b, depth, 2 * depth), a, b)
        calls[str(depth)] = lambda depth=depth: at_depth(a, b, depth, count)  # type: ignore[misc]
    times = interleaved(calls, rounds=2 if quick else 9, samples=3 if quick else 9, warm=1)
    floor = count / times["blocking"].p50 / 1e3
    for depth in _DEPTHS:
        yield specs("async")[f"depth_{depth}"].row(count / times[str(depth)].p50 / 1e3, None, floor)


def _blocking(a: torch.Tensor, b: torch.Tensor, count: int) -> None:
    for _ in range(count):
        shmgemm.gemm(a, b)


def _batches(a: torch.Tensor, b: torch.Tensor, quick: bool) -> Iterator[Row]:
    """Microseconds of each product."""
    progress("async: batches, beside blocking calls")
    samples = 20 if quick else 500
    for size in _BATCHES:
        pairs = [(a, b)] * size
        _check(shmgemm.batch(pairs), a, b)
        times = interleaved(
            {
                "batch": lambda pairs=pairs: shmgemm.batch(pairs),  # type: ignore[misc]
                "blocking": lambda size=size: _blocking(a, b, size),  # type: ignore[misc]
            },
            rounds=2 if quick else 9,
            samples=samples,
        )
        ours, floor = (times[how].scaled(1e6 / size) for how in ("batch", "blocking"))
        yield specs("async")[f"batch_{size}"].row(ours.p50, ours.p99, floor.p50)


def _counters(
    session: shmgemm.Session, a: torch.Tensor, b: torch.Tensor, quick: bool
) -> Iterator[Row]:
    """Of a batch sent to an engine that sleeps: commands by the session's counter, wake-ups by the
    kernel's count of how often the thread that serves the ring went to sleep again."""
    progress("async: commands and wake-ups of a batch")
    pairs = [(a, b)] * max(_BATCHES)
    commands, wakeups = [], []
    for _ in range(3 if quick else 15):
        time.sleep(_PARK_S)
        before = session.stats()["commands"], _sleeps(session.core.engine_pid)
        shmgemm.batch(pairs)
        time.sleep(_PARK_S)
        commands.append(session.stats()["commands"] - before[0])
        wakeups.append(_sleeps(session.core.engine_pid) - before[1])
    yield specs("async")["batch_commands"].row(statistics.median(commands))
    yield specs("async")["batch_wakeups"].row(statistics.median(wakeups))


def _sleeps(pid: int) -> int:
    """How often an engine's first thread, which serves its ring, has gone to sleep."""
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
