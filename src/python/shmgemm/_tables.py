"""Records as text, as csv and as a summary for JSON.

The csv bears SCALE-Sim's column names where the notion is the same, so what reads its reports reads
ours.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _activity, _files
from ._version import __version__

if TYPE_CHECKING:
    from .profiling import Machine, Record

WIDTH = 80


@dataclass
class Group:
    """Records that share a row of the table, summed."""

    label: str
    ops: int = 0
    cycles: int = 0
    busy_cycles: int = 0
    fill_drain_cycles: int = 0
    memory_stall_cycles: int = 0
    dispatch_cycles: int = 0
    macs: int = 0
    peak_macs: int = 0  # what the array could have done in these cycles
    bytes_copied: int = 0
    simulated_s: float = 0.0
    host_s: float = 0.0
    shapes: set[tuple[int, int, int, int]] = field(default_factory=set)

    def add(self, record: Record) -> None:
        self.ops += 1
        self.cycles += record.cycles
        self.busy_cycles += record.busy_cycles
        self.fill_drain_cycles += record.fill_drain_cycles
        self.memory_stall_cycles += record.memory_stall_cycles
        self.dispatch_cycles += record.dispatch_cycles
        self.macs += record.macs
        self.peak_macs += record.cycles * record.peak_macs_per_cycle
        self.bytes_copied += record.bytes_copied
        self.simulated_s += record.simulated_s
        self.host_s += record.host_s
        self.shapes.add(record.shape)

    @property
    def utilization(self) -> float:
        return self.macs / self.peak_macs if self.peak_macs else 0.0


def shape_text(shape: tuple[int, int, int, int]) -> str:
    m, n, k, batch = shape
    return f"{m}x{n}x{k}" + (f" b{batch}" if batch != 1 else "")


def _module_key(record: Record) -> str:
    return record.module or f"({record.name})"


def _op_key(record: Record) -> str:
    return f"{record.name} {record.dtype}"


_KEYS: dict[str, Callable[[Record], str]] = {"module": _module_key, "op": _op_key}


def groups(records: Iterable[Record], by: str = "module") -> list[Group]:
    """Rows in the order of first appearance; `by="op"` has one per op name, type and shape."""
    key = _KEYS.get(by)
    if key is None:
        raise ValueError(f"profile table: by={by!r} is not known; expected one of {sorted(_KEYS)}")
    found: dict[object, Group] = {}
    for record in records:
        label = key(record)
        identity = (label, record.shape) if by == "op" else label
        found.setdefault(identity, Group(label)).add(record)
    return list(found.values())


def total(records: Iterable[Record]) -> Group:
    result = Group("total")
    for record in records:
        result.add(record)
    return result


def seconds_text(seconds: float) -> str:
    if seconds >= 1000:
        return f"{seconds:.4g} s"
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3f} {unit}"
    return f"{seconds * 1e9:.1f} ns"


def _count(value: int, width: int) -> str:
    text = f"{value:,}"
    return text if len(text) <= width else f"{value:.{width - 7}e}"


def _fit(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    # A module path differs at its end; cut it between two names where that leaves something.
    tail = text[1 - width :]
    return "…" + (tail.partition(".")[2] if "." in tail[:-1] else tail)


def span_cycles(records: Sequence[Record]) -> int:
    """Cycles from the first op's start to the last one's end; of several sessions the sum."""
    sessions = {record.session for record in records}
    return sum(
        _activity.span_cycles(record for record in records if record.session == session)
        for session in sessions
    )


def _row(label: str, ops: str, shape: str, cycles: str, util: str, time: str) -> str:
    return f"{_fit(label, 27):<27} {ops:>6} {_fit(shape, 13):>13} {cycles:>13} {util:>5} {time:>11}"


def _group_row(group: Group) -> str:
    if len(group.shapes) == 1:
        shape = shape_text(next(iter(group.shapes)))
    else:
        shape = f"{len(group.shapes)} shapes"
    return _row(
        group.label,
        str(group.ops) if group.ops < 1_000_000 else f"{group.ops:.0e}",
        shape,
        _count(group.cycles, 13),
        f"{100 * group.utilization:.1f}",
        seconds_text(group.simulated_s),
    )


def table(records: Sequence[Record], by: str = "module") -> str:
    rows = groups(records, by)
    rule = "-" * WIDTH
    head = _row(
        "module" if by == "module" else "op", "ops", "MxNxK", "cycles", "util%", "simulated"
    )
    lines = [head, rule, *(_group_row(row) for row in rows), rule]
    whole = total(records)
    lines.append(_group_row(whole))
    parts = (
        ("busy", whole.busy_cycles),
        ("fill/drain", whole.fill_drain_cycles),
        ("memory stall", whole.memory_stall_cycles),
        ("dispatch", whole.dispatch_cycles),
    )
    if whole.cycles:
        shares = ", ".join(f"{name} {100 * cycles / whole.cycles:.1f} %" for name, cycles in parts)
        lines.append(f"cycles: {shares}")
    devices = len({(record.session, record.device) for record in records})
    if devices > 1:
        span = span_cycles(records)
        faster = f", {whole.cycles / span:.2f} x as fast as in turn" if span else ""
        lines.append(f"{devices} devices: {span:,} cycles from first to last{faster}")
    lines.append(f"host time {seconds_text(whole.host_s)}, copied {whole.bytes_copied:,} bytes")
    return "\n".join(lines)


# Column -> value. LayerID to Compute Util % as in SCALE-Sim's COMPUTE_REPORT.csv.
_COLUMNS: dict[str, Callable[[Record], object]] = {
    "Layer": lambda r: r.module,
    "Op": lambda r: r.name,
    "M": lambda r: r.m,
    "N": lambda r: r.n,
    "K": lambda r: r.k,
    "Batch": lambda r: r.batch,
    "Dtype": lambda r: r.dtype,
    "Session": lambda r: r.session,
    "Device": lambda r: r.device,
    "Stream": lambda r: r.stream,
    "Generation": lambda r: r.generation,
    "Total Cycles": lambda r: r.cycles,
    "Stall Cycles": lambda r: r.memory_stall_cycles,
    "Overall Util %": lambda r: 100 * r.utilization,
    "Mapping Efficiency %": lambda r: 100 * r.mapping_efficiency,
    "Compute Util %": lambda r: 100 * r.compute_utilization,
    "Start Cycle": lambda r: r.start_cycles,
    "End Cycle": lambda r: r.end_cycles,
    "Busy Cycles": lambda r: r.busy_cycles,
    "Fill/Drain Cycles": lambda r: r.fill_drain_cycles,
    "Dispatch Cycles": lambda r: r.dispatch_cycles,
    "MACs": lambda r: r.macs,
    "Folds": lambda r: r.folds,
    "Scratchpad Read Bytes": lambda r: sum(r.read_bytes["scratchpad"].values()),
    "Scratchpad Write Bytes": lambda r: sum(r.write_bytes["scratchpad"].values()),
    "Memory Read Bytes": lambda r: sum(r.read_bytes["memory"].values()),
    "Memory Write Bytes": lambda r: sum(r.write_bytes["memory"].values()),
    "Simulated Time (s)": lambda r: r.simulated_s,
    "Host Time (s)": lambda r: r.host_s,
    "Bytes Copied": lambda r: r.bytes_copied,
}
COLUMNS = ("LayerID", *_COLUMNS, "Version", "Preset", "Preset Hash", "Numerics")


def write_csv(path: str | Path, records: Sequence[Record], machines: Sequence[Machine]) -> Path:
    path = Path(path)
    with (
        _files.named("cannot write", path),
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index, record in enumerate(records):
            machine = machines[record.session]
            values = [value(record) for value in _COLUMNS.values()]
            made_by = __version__, machine.preset, machine.preset_hash, machine.numerics
            writer.writerow([index, *values, *made_by])
    return path


def _summed(group: Group) -> dict[str, Any]:
    values = asdict(group)
    del values["peak_macs"]
    values["shapes"] = sorted(group.shapes)
    values["utilization"] = group.utilization
    return values


def summary(records: Sequence[Record], machines: Sequence[Machine]) -> dict[str, Any]:
    return {
        "version": __version__,
        "machines": [asdict(machine) for machine in machines],
        "totals": _summed(total(records)) | {"span_cycles": span_cycles(records)},
        "modules": [_summed(group) for group in groups(records)],
    }
