"""What a device did over simulated time, as rates: for the trace's counters and for pictures.

An op's timeline (`Record.timeline`) says which core loaded, computed, stored or stalled when; here
it becomes stretches of time with constant rates. An op without one, as closed-form models give, is
one stretch with its averages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from .profiling import Machine, Record

KINDS = ("load", "compute", "store", "stall")  # by their number in a record (model::ActivityKind)
_CORES_KEPT = 50  # a timeline shows no more: model::kTimelineEntries over 8 for each
_BUSY, _STALL, _DISPATCH, _BYTES = _RATES = range(4)
_COLUMNS = {"load": _BYTES, "compute": _BUSY, "store": _BYTES, "stall": _STALL}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Time (in cycles) with constant rates; shares are of all cores' cycles, 0..1."""

    start: float
    end: float
    macs: float = 0.0  # share of the peak MACs
    busy: float = 0.0  # share in which operands stream through the arrays
    stall: float = 0.0  # share in which arrays wait for memory
    dispatch: float = 0.0  # share before the cores begin
    bytes_per_cycle: float = 0.0  # to and from memory


def bandwidth(machine: Machine) -> int | None:
    """Bytes per second between the device and its memory, or None where its model sets no limit."""
    if machine.parameters.get("memory") == "ideal":
        return None
    model = machine.parameters.get("model")
    for info in _core.models():
        if info.name != model:
            continue
        for parameter in info.parameters:
            if parameter.unit == "bytes/s" and parameter.name in machine.parameters:
                text = machine.parameters[parameter.name]
                return _core.parse_quantity(parameter.name, text, "bytes/s")
    return None


def placed(records: Iterable[Record]) -> list[tuple[Record, int]]:
    """One device's records, each with its start on the device's clock, in the order of these.

    A fresh engine, after a loss, goes on where the program has waited to, which may be before the
    end of an op that nobody waited for; here it comes after all that its predecessor did.
    """
    by_engine: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_engine[record.generation].append(record)
    starts: list[tuple[Record, int]] = []
    end = 0
    for _, ops in sorted(by_engine.items()):
        later = max(0, end - min(record.start_cycles for record in ops))
        starts += [(record, record.start_cycles + later) for record in ops]
        end = max(record.end_cycles for record in ops) + later
    return sorted(starts, key=lambda one: one[1])


def span_cycles(records: Iterable[Record]) -> int:
    """Cycles from the start of a session's first op to the end of its last, whatever device."""
    by_device: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_device[record.device].append(record)
    times = [time for ops in by_device.values() for time in placed(ops)]
    if not times:
        return 0
    return max(start + op.cycles for op, start in times) - min(start for _, start in times)


def _average(record: Record) -> Stretch:
    cycles = record.cycles or 1
    return Stretch(
        record.start_cycles,
        record.end_cycles,
        macs=record.utilization,
        busy=record.busy_cycles / cycles,
        stall=record.memory_stall_cycles / cycles,
        dispatch=record.dispatch_cycles / cycles,
        bytes_per_cycle=record.memory_bytes / cycles,
    )


def _sums_of_timeline(record: Record) -> Iterator[tuple[int, int, list[float]]]:
    """(start, end, rates) between one change and the next, over all cores and from start to end."""
    changes: defaultdict[int, list[float]] = defaultdict(lambda: [0.0 for _ in _RATES])

    def add(column: int, start: int, end: int, rate: float) -> None:
        changes[start][column] += rate
        changes[end][column] -= rate

    begin = record.start_cycles + record.dispatch_cycles
    add(_DISPATCH, record.start_cycles, begin, 1.0)
    add(_BUSY, begin, record.end_cycles, 0.0)
    for entry in record.timeline:
        rate = entry.amount / (entry.end_cycles - entry.start_cycles)
        add(_COLUMNS[entry.kind], entry.start_cycles, entry.end_cycles, rate)
    rates = [0.0 for _ in _RATES]
    times = sorted(changes)
    for start, end in pairwise(times):
        rates = [
            max(0.0, rate + change) for rate, change in zip(rates, changes[start], strict=True)
        ]
        yield start, end, rates


def _served(stretches: Iterable[Stretch], limit: float) -> Iterator[Stretch]:
    """The same bytes, none of them faster than the memory.

    A load's slice begins where it is asked for, so slices of requests that queue overlap and their
    rates add up to more than the memory gives. What is too much is served after it.
    """
    waiting = 0.0
    for stretch in stretches:
        rate, length = stretch.bytes_per_cycle, stretch.end - stretch.start
        drained = waiting / (limit - rate) if rate < limit else length
        if waiting and drained < length:
            middle = stretch.start + drained
            if middle > stretch.start:
                yield replace(stretch, end=middle, bytes_per_cycle=limit)
            yield replace(stretch, start=middle)
            waiting = 0.0
        elif waiting or rate > limit:
            waiting += (rate - limit) * length
            yield replace(stretch, bytes_per_cycle=limit)
        else:
            yield stretch


def _coarse(stretches: Iterable[Stretch], shortest: float) -> Iterator[Stretch]:
    """Means over at least `shortest` cycles, where stretches are shorter than that."""
    group: list[Stretch] = []
    for stretch in stretches:
        group.append(stretch)
        if stretch.end - group[0].start >= shortest:
            yield _mean(group)
            group = []
    if group:
        yield _mean(group)


def _mean(group: Sequence[Stretch]) -> Stretch:
    if len(group) == 1:
        return group[0]
    start, end = group[0].start, group[-1].end

    def mean(name: str) -> float:
        total = sum(getattr(one, name) * (one.end - one.start) for one in group)
        return float(total / (end - start))

    names = [field.name for field in fields(Stretch)[2:]]
    return Stretch(start, end, **{name: mean(name) for name in names})


def stretches(record: Record, machine: Machine, shortest: float = 0.0) -> list[Stretch]:
    """An op's rates over its cycles, which they cover without a gap.

    Their sums are the record's: `macs`, and the bytes of its memory traffic (nearly, where there
    are more cores than a timeline keeps). None but the last is shorter than `shortest` cycles.
    """
    if record.cycles == 0:
        return []
    if record.cycles <= shortest or not record.timeline:
        return [_average(record)]
    sums = list(_sums_of_timeline(record))
    busy = sum(rates[_BUSY] * (end - start) for start, end, rates in sums)
    moved = sum(rates[_BYTES] * (end - start) for start, end, rates in sums)
    cores = min(int(machine.parameters.get("cores", "1")), _CORES_KEPT)
    macs = record.macs / record.peak_macs_per_cycle / busy if busy else 0.0
    # Ideal memory takes no time, which leaves no slice to show; and cores may not have been kept.
    bytes_scale = record.memory_bytes / moved if moved else 0.0
    bytes_mean = 0.0 if moved else record.memory_bytes / record.cycles
    whole: Iterator[Stretch] = (
        Stretch(
            start,
            end,
            macs=min(1.0, rates[_BUSY] * macs),
            busy=min(1.0, rates[_BUSY] / cores),
            stall=min(1.0, rates[_STALL] / cores),
            dispatch=rates[_DISPATCH],
            bytes_per_cycle=rates[_BYTES] * bytes_scale + bytes_mean,
        )
        for start, end, rates in sums
    )
    limit = bandwidth(machine)
    if limit and record.clock_hz:
        whole = _served(whole, limit / record.clock_hz)
    return list(_coarse(whole, shortest))
