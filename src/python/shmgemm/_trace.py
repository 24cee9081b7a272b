"""A profile as Trace Event JSON: opens in Perfetto and in chrome://tracing.

Two processes: what the devices did in simulated time, and what the host saw in its own. Times are
microseconds; each starts at its own 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._tables import shape_text
from ._version import __version__

if TYPE_CHECKING:
    from .profiling import Machine, Record

SIMULATED, HOST = 1, 2  # process ids
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
        },
    }


class _Clock:
    """One device's simulated time as it goes on: a fresh engine, after a loss, begins at 0 again.

    Within one engine no op starts before the end of an op that the host saw complete earlier; one
    that seems to has a new engine behind it, and is drawn after all that came before.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._latest = 0
        self._completed = 0  # latest end of what had completed when the op was asked for
        self._pending: list[tuple[int, int]] = []  # completed at (host), end cycle

    def start_of(self, record: Record) -> int:
        """For one record after another in the order in which the host asked for them."""
        while self._pending and self._pending[0][0] <= record.host_start_ns:
            self._completed = max(self._completed, heappop(self._pending)[1])
        if record.start_cycles + self._offset < self._completed:
            self._offset = self._latest
        end = record.end_cycles + self._offset
        self._latest = max(self._latest, end)
        heappush(self._pending, (record.host_start_ns + record.host_ns, end))
        return end - record.cycles


def _simulated(records: Sequence[Record], machines: Sequence[Machine]) -> list[Event]:
    lanes: dict[tuple[int, int], int] = {}
    clocks: dict[int, _Clock] = {}
    events = []
    for record in sorted(records, key=lambda record: record.host_start_ns):
        tid = lanes.setdefault((record.session, record.device), len(lanes))
        us = 1e6 / record.clock_hz
        start = clocks.setdefault(tid, _Clock()).start_of(record)
        events.append(_complete(record, SIMULATED, tid, start * us, record.cycles * us))
    names = []
    for (session, device), tid in lanes.items():
        text = f"device {device} ({machines[session].preset})"
        text = f"session {session}, {text}" if len(machines) > 1 else text
        names.append(_label("thread_name", SIMULATED, tid, text))
    return names + events


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
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
