"""Which benches there are, and all of them in one run: `shmgemm bench all`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .harness import Row, progress

Run = Callable[[bool], list[Row]]

BENCHES = {
    "latency": "commands and small products; idle, cold start, loss",
    "gemm": "products beside bare OpenBLAS and beside sockets; what gets copied",
    "staging": "what is copied into the region and back, beside memcpy",
    "async": "products without waiting, in batches, pipelined; two devices",
    "model": "a real model beside plain torch",
    "timing": "what the timing models cost; simulated cycles a second",
}
_MODULES = {"async": "asynchronous"}
_SAME_THROUGH_SST = ("async", "model")  # the same rows, with SST in the embedded engine's place


def bench(what: str, engine: str = "embedded", guest: bool = False) -> Run:
    """What measures it; ValueError where there is none for that engine or through a guest."""
    if guest:
        if what != "latency":
            raise ValueError(f"bench {what} --guest: there is none, only latency")
        from . import through_guest

        return partial(through_guest.latency, engine)
    if engine == "embedded":
        return _module_of(what).run  # type: ignore[no-any-return]
    from . import through_sst

    if what in _SAME_THROUGH_SST:
        return partial(through_sst.same, _module_of(what).run)
    found = {"latency": through_sst.latency, "gemm": through_sst.gemm}
    if what not in found:
        known = ", ".join((*found, *_SAME_THROUGH_SST))
        raise ValueError(f"bench {what} --engine sst: there is none, only {known}")
    return found[what]


def _module_of(what: str) -> Any:
    return import_module(f".{_MODULES.get(what, what)}", __package__)


def benches(engine: str, guest: bool) -> dict[str, Run]:
    """All for that engine, by name, without importing them; through SST latency has gemm's rows."""
    names = tuple(BENCHES) if engine == "embedded" else ("latency", *_SAME_THROUGH_SST)
    found: dict[str, Run] = {name: partial(_run, name, engine, False) for name in names}
    if guest:
        found["guest"] = partial(_run, "latency", engine, True)
    return found


def _run(what: str, engine: str, guest: bool, quick: bool) -> list[Row]:
    return bench(what, engine, guest)(quick)


def run_all(
    runs: Mapping[str, Run], quick: bool, left_out: dict[str, str]
) -> Iterator[tuple[str, list[Row]]]:
    """Each bench's rows as soon as it is done; `left_out` gets those that miss a package."""
    for number, (name, run) in enumerate(runs.items(), 1):
        progress(f"bench {name}: {number} of {len(runs)}")
        try:
            rows = run(quick)
        except ImportError as error:
            progress(f"bench {name} is left out: {error}")
            left_out[name] = str(error)
            continue
        yield name, rows


def facts(engine: str) -> dict[str, Any]:
    """Version, preset and machine: what a report says of where its rows come from."""
    from .. import hardware
    from .._version import __version__

    described = hardware.load(None)
    return {
        "version": __version__,
        "preset": described.name,
        "preset_hash": described.digest,
        "machine": {
            "cpu": _cpu_model(),
            "cpus": len(os.sched_getaffinity(0)),
            "engine": engine,
            "torch": _torch_version(),
        },
    }


def report(
    told: Mapping[str, Any], found: Mapping[str, list[Row]], left_out: Mapping[str, str]
) -> str:
    """One JSON object: the facts, the rows with their bench's name, what was left out and why."""
    rows = [{"bench": name, **asdict(row)} for name, rows in found.items() for row in rows]
    return json.dumps({**told, "left_out": dict(left_out), "rows": rows}, indent=2)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def _torch_version() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None
