"""What the device did between two points of a program: one record per op, and what ran elsewhere.

`with shmgemm.profile() as prof:` records every op that any session of this process completes
inside the block, from any thread. Profiles nest, each sees its own block. `stats()` are the totals
of the current session.
"""

from __future__ import annotations

import struct
import sys
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _fallback, _tables, _trace
from . import session as _session
from ._activity import KINDS
from ._dtypes import NAMES

if TYPE_CHECKING:
    from ._core import OpRecord
    from ._mac_counter import MacCounter
    from .coverage import Coverage
    from .session import Session

LEVELS = ("scratchpad", "memory")
OPERANDS = ("a", "b", "c", "bias")

Traffic = Mapping[str, Mapping[str, int]]  # level -> operand -> bytes
_ENTRY = struct.Struct("<IIQQQ")  # shmgemm_timeline_entry


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """What one core of the device was at for a while, times in cycles as `Record.start_cycles`.

    "load" and "store" last from the request to its end, `amount` is bytes; "compute": arrays at
    work, `amount` is the cycles in which operands stream; "stall": arrays wait for memory, cycles.
    """

    core: int
    kind: str
    start_cycles: int
    end_cycles: int
    amount: int


@dataclass(frozen=True, slots=True)
class Record:
    """One op. Cycles are of the device's clock, `macs` is M·N·K·batch, times are seconds.

    busy + fill_drain + memory_stall + dispatch = cycles = end - start.
    """

    name: str
    module: str  # path of the layer that asked for it, "" outside of one
    m: int
    n: int
    k: int
    batch: int
    dtype: str
    dtype_out: str
    device: int
    session: int  # which of the profile's sessions, from 0
    start_cycles: int
    end_cycles: int
    busy_cycles: int
    fill_drain_cycles: int
    memory_stall_cycles: int
    macs: int
    peak_macs_per_cycle: int
    folds: int
    mapping_efficiency: float  # 0..1, mean share of the array a fold uses
    compute_utilization: float  # 0..1, mean share of a fold's PE-cycles that multiply
    read_bytes: Traffic
    write_bytes: Traffic
    bytes_copied: int  # staged by the host for operands outside of the region
    host_start_ns: int  # steady clock
    host_ns: int
    clock_hz: int
    stream: int = 0  # 0: the device's own
    generation: int = 0  # of the engine that served it, larger where a new one had to be started
    timeline_data: bytes = field(default=b"", repr=False)  # packed: most are never looked at

    @property
    def timeline(self) -> tuple[TimelineEntry, ...]:
        """What each core did when: by core, then kind ("load", "compute", "store", "stall"), then
        start; intervals of one core and kind do not overlap. At most 400: where there were more,
        neighbours are merged, which keeps the sums of `amount`. Empty with closed-form models."""
        return tuple(
            TimelineEntry(core, KINDS[kind], start, end, amount)
            for core, kind, start, end, amount in _ENTRY.iter_unpack(self.timeline_data)
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(M, N, K, batch)."""
        return (self.m, self.n, self.k, self.batch)

    @property
    def cycles(self) -> int:
        return self.end_cycles - self.start_cycles

    @property
    def dispatch_cycles(self) -> int:
        spent = self.busy_cycles + self.fill_drain_cycles + self.memory_stall_cycles
        return self.cycles - spent

    @property
    def utilization(self) -> float:
        """MACs ÷ (cycles × peak MACs per cycle), 0..1."""
        peak = self.cycles * self.peak_macs_per_cycle
        return self.macs / peak if peak else 0.0

    @property
    def simulated_s(self) -> float:
        return self.cycles / self.clock_hz if self.clock_hz else 0.0

    @property
    def host_s(self) -> float:
        return self.host_ns / 1e9

    @property
    def memory_bytes(self) -> int:
        """Bytes between the device and its memory, both ways; 0 where the model has no memory."""
        moved = (self.read_bytes["memory"], self.write_bytes["memory"])
        return sum(sum(operands.values()) for operands in moved)


@dataclass(frozen=True)
class Machine:
    """The hardware a session of the profile simulates, and how it sums."""

    preset: str
    preset_hash: str
    clock_hz: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    numerics: str = "fast"


def _traffic(levels: list[list[int]]) -> Traffic:
    return {
        level: dict(zip(OPERANDS, row, strict=True))
        for level, row in zip(LEVELS, levels, strict=True)
    }


def _record(op: OpRecord, session: int, clock_hz: int) -> Record:
    return Record(
        name=op.name,
        module=op.scope,
        m=op.m,
        n=op.n,
        k=op.k,
        batch=op.batch,
        dtype=NAMES[op.dtype_in],
        dtype_out=NAMES[op.dtype_out],
        device=op.device,
        session=session,
        start_cycles=op.start_cycles,
        end_cycles=op.end_cycles,
        busy_cycles=op.busy_cycles,
        fill_drain_cycles=op.fill_drain_cycles,
        memory_stall_cycles=op.memory_stall_cycles,
        macs=op.m * op.n * op.k * op.batch,
        peak_macs_per_cycle=op.peak_macs_per_cycle,
        folds=op.folds,
        mapping_efficiency=op.mapping_efficiency,
        compute_utilization=op.compute_utilization,
        read_bytes=_traffic(op.read_bytes),
        write_bytes=_traffic(op.write_bytes),
        bytes_copied=op.bytes_copied,
        host_start_ns=op.host_start_ns,
        host_ns=op.host_ns,
        clock_hz=clock_hz,
        stream=op.stream,
        generation=op.generation,
        timeline_data=op.timeline,
    )


def _plus(left: _fallback.Counters, right: _fallback.Counters) -> _fallback.Counters:
    return _fallback.Counters(*(a + b for a, b in zip(left, right, strict=True)))


def _minus(left: _fallback.Counters, right: _fallback.Counters) -> _fallback.Counters:
    return _fallback.Counters(*(a - b for a, b in zip(left, right, strict=True)))


class _Hub:
    """Drains the sessions' records into every profile that is open.

    A session has one list of records and any number of readers, so records are handed out here and
    before the set of readers changes.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: list[Profile] = []
        self._watched: list[Session] = []

    def add(self, profile: Profile) -> None:
        with self._lock:
            self.drain()
            self._open.append(profile)
            for session in _session.open_sessions():
                self._watch(session)

    def remove(self, profile: Profile) -> None:
        with self._lock:
            self.drain()
            self._open.remove(profile)
            if not self._open:
                for session in self._watched:
                    session.core.set_profiling(False)
                self._watched.clear()

    def session_opened(self, session: Session) -> None:
        with self._lock:
            if self._open:
                self._watch(session)

    def drain(self) -> None:
        with self._lock:
            for session in self._watched:
                ops = session.core.take_records()
                if ops:
                    for profile in self._open:
                        profile._take(session, ops)

    def _watch(self, session: Session) -> None:
        if not any(known is session for known in self._watched):
            session.core.set_profiling(True)
            self._watched.append(session)


_hub = _Hub()
_session.on_open(_hub.session_opened)


class Profile:
    """The records of a `with shmgemm.profile()` block; also readable while it is open.

    Entered a second time it goes on collecting.
    """

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._sessions: list[weakref.ref[Session]] = []  # a profile keeps no engine alive
        self._machines: list[Machine] = []
        self._is_open = False
        self._counter: MacCounter | None = None
        self._torch_unseen = False  # torch came in after the block began
        self._left_out = _fallback.Counters()
        self._at_entry = _fallback.Counters()

    def __enter__(self) -> Profile:
        if self._is_open:
            raise RuntimeError("this profile is already open; use one shmgemm.profile() per block")
        _hub.add(self)
        self._is_open = True
        self._at_entry = _fallback.counters()
        if sys.modules.get("torch") is not None:
            from ._mac_counter import MacCounter

            self._counter = self._counter or MacCounter()
            self._counter.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._counter is not None:
            self._counter.stop()
        elif sys.modules.get("torch") is not None:
            self._torch_unseen = True
        _hub.remove(self)
        self._is_open = False
        self._left_out = _plus(self._left_out, _minus(_fallback.counters(), self._at_entry))

    def _take(self, session: Session, ops: Iterable[OpRecord]) -> None:
        index = self._index_of(session)
        clock_hz = self._machines[index].clock_hz
        self._records.extend(_record(op, index, clock_hz) for op in ops)

    def _index_of(self, session: Session) -> int:
        for index, known in enumerate(self._sessions):
            if known() is session:
                return index
        hardware = session.hardware
        self._sessions.append(weakref.ref(session))
        self._machines.append(
            Machine(
                hardware.label,
                hardware.digest,
                session.clock_hz,
                dict(hardware.parameters),
                session.numerics,
            )
        )
        return len(self._sessions) - 1

    @property
    def records(self) -> list[Record]:
        """One record per op, in the order in which each session completed them."""
        if self._is_open:
            _hub.drain()
        return list(self._records)

    @property
    def machines(self) -> list[Machine]:
        """The hardware of each session seen, at the index `Record.session`."""
        self.records  # noqa: B018 - drains
        return list(self._machines)

    @property
    def cycles(self) -> int:
        """Sum of all ops' cycles (of one device: its time with no gaps)."""
        return sum(record.cycles for record in self.records)

    @property
    def span_cycles(self) -> int:
        """Cycles from the first op's start to the last one's end, in which the work of several
        devices overlaps; of several sessions the sum."""
        return _tables.span_cycles(self.records)

    @property
    def simulated_s(self) -> float:
        return sum(record.simulated_s for record in self.records)

    @property
    def coverage(self) -> Coverage:
        """How much of the model's matrix work the device did; see `shmgemm.coverage.Coverage`."""
        from .coverage import measure

        left_out = self._left_out
        if self._is_open:
            left_out = _plus(left_out, _minus(_fallback.counters(), self._at_entry))
        coverage = measure(self.records, self._counter, left_out)
        return replace(coverage, linear=None, matrix=None) if self._torch_unseen else coverage

    def table(self, by: str = "module") -> str:
        """Cycles per module path, or with `by="op"` per op and shape; 80 columns wide."""
        return _tables.table(self.records, by=by)

    def to_csv(self, path: str | Path) -> Path:
        """One row per op; the columns stand in docs/profile.md."""
        return _tables.write_csv(path, self.records, self.machines)

    def to_chrome_trace(self, path: str | Path) -> Path:
        """Trace Event JSON for Perfetto or chrome://tracing: simulated and host time."""
        return _trace.write(path, self.records, self.machines)

    def to_dict(self) -> dict[str, Any]:
        """Totals, coverage and one entry per module, ready for JSON."""
        return _tables.summary(self.records, self.machines) | {"coverage": self.coverage.to_dict()}


def profile() -> Profile:
    """Record the device's ops: `with shmgemm.profile() as prof: model(x)`."""
    return Profile()


_TOTALS = (
    "ops",
    "commands",
    "macs",
    "cycles",
    "busy_cycles",
    "fill_drain_cycles",
    "memory_stall_cycles",
    "now_cycles",
    "bytes_copied",
    "engine_starts",
    "rejects",
    "region_bytes",
    "heap_bytes",
    "heap_used_bytes",
    "clock_hz",
)


def stats() -> dict[str, Any]:
    """The current session's totals since it was opened; all 0 where there is none."""
    current = _session.current_or_none()
    return dict.fromkeys(_TOTALS, 0) if current is None else current.stats()
