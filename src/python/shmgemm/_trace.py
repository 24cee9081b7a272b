"""A profile as Trace Event JSON: opens in Perfetto and in chrome://tracing.

Two processes: what the devices did in simulated time, and what the host saw in its own. Below a
device's ops lies what each of its cores did, beside them how busy arrays and memory were. Times
are microseconds; each process starts at its own 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _files
from ._activity import KINDS, placed, stretches
from ._tables import shape_text
from ._version import __version__

if TYPE_CHECKING:
    from .profiling import Machine, Record, TimelineEntry

SIMULATED, HOST = 1, 2  # process ids
_MOST_SLICES = 40_000  # of all cores; a long run's are merged until there are no more
_MOST_COUNTS = 10_000  # of one counter
_DIGITS = 6  # of a time in microseconds
_NAMES = {"load": "load", "compute": "compute", "store": "store", "stall": "memory stall"}
_AMOUNTS = {"load": "bytes", "compute": "busy cycles", "store": "bytes", "stall": "cycles"}
Event = dict[str, Any]


def _label(kind: str, pid: int, tid: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}


def _complete(record: Record, pid: int, tid: int, start_us: float, length_us: float) -> Event:
    return {
        "name": record.module or record.name,
        "cat": record.name,
        "ph": "X",
        "pid": pid,
        "tid": tid,
        "ts": start_us,
        "dur": length_us,
        "args": {
            "shape MxNxK": shape_text(record.shape),
            "dtype": record.dtype,
            "cycles": record.cycles,
            "start cycle": record.start_cycles,
            "busy cycles": record.busy_cycles,
            "fill/drain cycles": record.fill_drain_cycles,
            "memory stall cycles": record.memory_stall_cycles,
            "dispatch cycles": record.dispatch_cycles,
            "utilization": record.utilization,
            "bytes copied": record.bytes_copied,
            **({"stream": record.stream} if record.stream else {}),
        },
    }


def _thin(entries: Sequence[TimelineEntry], group: int) -> Iterator[TimelineEntry]:
    """One entry for each `group` of one core and kind; amounts are summed."""
    for _, lane in groupby(entries, key=lambda entry: (entry.core, entry.kind)):
        while members := list(islice(lane, group)):
            amount = sum(entry.amount for entry in members)
            yield replace(members[0], end_cycles=members[-1].end_cycles, amount=amount)


def _slice(entry: TimelineEntry, tid: int, start_us: float, us: float) -> Event:
    return {
        "name": _NAMES[entry.kind],
        "cat": "timeline",
        "ph": "X",
        "pid": SIMULATED,
        "tid": tid,
        "ts": round(start_us, _DIGITS),
        "dur": round((entry.end_cycles - entry.start_cycles) * us, _DIGITS),
        "args": {_AMOUNTS[entry.kind]: entry.amount},
    }


def _counter(name: str, at_us: float, unit: str, value: float) -> Event:
    return {
        "name": name,
        "ph": "C",
        "pid": SIMULATED,
        "tid": 0,
        "ts": round(at_us, _DIGITS),
        "args": {unit: value},
    }


class _Device:
    """The tracks of one simulated device: its ops, what its cores did below, and two counters."""

    def __init__(self, records: Sequence[Record], machine: Machine, name: str, prefix: str) -> None:
        self._placed = placed(records)
        self._machine = machine
        self._name = name
        self._prefix = prefix
        self._lanes = sorted({_lane_of(entry) for record in records for entry in record.timeline})

    def labels(self, first_tid: int) -> list[Event]:
        """Numbers the tracks from `first_tid` on, in the order in which they are to be shown."""
        self._tids = {lane: first_tid + 1 + index for index, lane in enumerate(self._lanes)}
        self._tid = first_tid
        lanes = [f"{self._prefix}core {core} {KINDS[kind]}" for core, kind in self._lanes]
        names = [self._name, *lanes]
        events = []
        for tid, name in enumerate(names, first_tid):
            events.append(_label("thread_name", SIMULATED, tid, name))
            order = {"name": "thread_sort_index", "ph": "M", "pid": SIMULATED, "tid": tid}
            events.append({**order, "args": {"sort_index": tid}})
        return events

    def ops(self) -> Iterator[Event]:
        for record, start in self._placed:
            us = 1e6 / record.clock_hz
            yield _complete(record, SIMULATED, self._tid, start * us, record.cycles * us)

    def slices(self, group: int) -> Iterator[Event]:
        for record, start in self._placed:
            us = 1e6 / record.clock_hz
            for entry in _thin(record.timeline, group):
                at = start + entry.start_cycles - record.start_cycles
                yield _slice(entry, self._tids[_lane_of(entry)], at * us, us)

    def counters(self) -> Iterator[Event]:
        """A value wherever one changes; 0 where the device is idle and at the end."""
        shown: dict[str, float] = {}
        for at_us, busy, speed in self._values():
            for name, unit, value in (
                ("array use", "%", round(100 * busy, 2)),
                ("memory bandwidth", "GB/s", float(f"{speed:.5g}")),
            ):
                if shown.get(name) != value:
                    shown[name] = value
                    yield _counter(self._prefix + name, at_us, unit, value)

    def _values(self) -> Iterator[tuple[float, float, float]]:
        """(time in microseconds, share of cycles busy, GB/s) from then on."""
        shortest = sum(record.cycles for record, _ in self._placed) / _MOST_COUNTS
        until = 0
        for record, start in self._placed:
            us = 1e6 / record.clock_hz
            if start > until:
                yield until * us, 0.0, 0.0
            for stretch in stretches(record, self._machine, shortest):
                at = start + stretch.start - record.start_cycles
                yield at * us, stretch.busy, stretch.bytes_per_cycle * record.clock_hz / 1e9
            until = start + record.cycles
        if self._placed:
            yield until * us, 0.0, 0.0


def _lane_of(entry: TimelineEntry) -> tuple[int, int]:
    return entry.core, KINDS.index(entry.kind)


def _simulated(records: Sequence[Record], machines: Sequence[Machine]) -> list[Event]:
    by_device: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        by_device.setdefault((record.session, record.device), []).append(record)
    group = max(1, -(-sum(len(record.timeline) for record in records) // _MOST_SLICES))
    events: list[Event] = []
    tid = 0
    for (session, number), ops in by_device.items():
        text = f"device {number}"
        text = f"session {session}, {text}" if len(machines) > 1 else text
        prefix = f"{text}: " if len(by_device) > 1 else ""
        device = _Device(ops, machines[session], f"{text} ({machines[session].preset})", prefix)
        labels = device.labels(tid)
        tid += len(labels) // 2
        events += [*labels, *device.ops(), *device.slices(group), *device.counters()]
    return events


def _host(records: Sequence[Record]) -> list[Event]:
    # Ops of several threads overlap, which one lane cannot show: each takes the first free lane.
    ordered = sorted(records, key=lambda record: record.host_start_ns)
    origin = ordered[0].host_start_ns if ordered else 0
    free_at: list[int] = []
    events = []
    for record in ordered:
        start = record.host_start_ns
        tid = next((lane for lane, end in enumerate(free_at) if end <= start), len(free_at))
        if tid == len(free_at):
            free_at.append(0)
        free_at[tid] = start + record.host_ns
        events.append(_complete(record, HOST, tid, (start - origin) / 1e3, record.host_ns / 1e3))
    return [
        _label("thread_name", HOST, tid, f"caller {tid}") for tid in range(len(free_at))
    ] + events


def write(path: str | Path, records: Sequence[Record], machines: Sequence[Machine]) -> Path:
    path = Path(path)
    document = {
        "displayTimeUnit": "ns",
        "otherData": {
            "version": __version__,
            "presets": ", ".join(machine.preset for machine in machines),
            "preset hashes": ", ".join(machine.preset_hash for machine in machines),
            "numerics": ", ".join(machine.numerics for machine in machines),
        },
        "traceEvents": [
            _label("process_name", SIMULATED, 0, "simulated time"),
            _label("process_name", HOST, 0, "host time"),
            *_simulated(records, machines),
            *_host(records),
        ],
    }
    with _files.named("cannot write", path):
        path.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
    return path
