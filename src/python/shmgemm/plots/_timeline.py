"""A run as it went: how busy arrays and memory were over simulated time, and in which layers.

Drawn from the ops' timelines, a step for each pixel; of very many ops, which no pixel could show,
as means over several of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .._activity import bandwidth, placed, stretches
from . import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ..profiling import Machine, Profile, Record

MOST_GROUPS = 16  # of modules, marked
_STEPS = 1600
_MOST_OPS = 300  # that can be told apart
_OPS_OF_A_STEP = 4  # where there are more

Placed = Sequence[tuple["Record", int]]


def rates(ops: Placed, machine: Machine, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(5, len(edges) - 1) means between `edges` (cycles): MACs, busy, stall and dispatch as shares
    of 1, bytes per cycle."""
    shortest = float(edges[1] - edges[0]) / 4
    rows: list[tuple[float, ...]] = []
    for record, start in ops:
        shift = start - record.start_cycles
        for one in stretches(record, machine, shortest):
            shares = (one.macs, one.busy, one.stall, one.dispatch, one.bytes_per_cycle)
            rows.append((one.start + shift, one.end + shift, *shares))
    table = np.array(sorted(rows), dtype=np.float64)
    begins, ends = table[:, 0], table[:, 1]
    times = np.column_stack([begins, ends]).ravel()
    means = []
    for column in table[:, 2:].T:
        done = np.zeros(2 * len(column))  # at each begin and end, with gaps between them
        done[1::2] = np.cumsum(column * (ends - begins))
        done[2::2] = done[1:-1:2]
        means.append(np.diff(np.interp(edges, times, done)) / np.diff(edges))
    return np.array(means)


def module_groups(ops: Placed) -> list[tuple[str, int, int]]:
    """(module path, start, end) of what runs in a row, at the greatest depth of path that gives no
    more than MOST_GROUPS; none where no depth does."""
    depth = max((record.module.count(".") + 1 for record, _ in ops), default=0)
    while depth > 0:
        groups = []
        for name, run in groupby(ops, key=lambda op: _prefix(op[0].module, depth)):
            members = list(run)
            end = members[-1][1] + members[-1][0].cycles
            groups.append((name, members[0][1], end))
        if len(groups) <= MOST_GROUPS:
            return groups
        depth -= 1
    return []


def _prefix(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth])


def _draw_groups(axes: Axes, groups: list[tuple[str, int, int]], scale: float) -> None:
    """A band with the groups' names, as much of each as its part of the band has room for."""
    axes.set_ylim(0, 1)
    axes.axis("off")
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    for index, (name, start, end) in enumerate(groups):
        left, width = start * scale, (end - start) * scale
        axes.broken_barh([(left, width)], (0, 1), color=("#e4e4e4", "#f3f3f3")[index % 2])
        pixels = axes.transData.transform([(left, 0), (left + width, 0)])
        room = pixels[1][0] - pixels[0][0] - 6
        parts = name.split(".")
        for shown in [".".join(parts[first:]) for first in range(len(parts))]:
            text = axes.text(left + width / 2, 0.5, shown, ha="center", va="center", fontsize=8)
            if text.get_window_extent().width <= room:
                break
            text.remove()


def _draw_use(axes: Axes, means: NDArray[np.float64], edges: NDArray[np.float64]) -> None:
    macs, busy, stall, dispatch = 100 * means[:4]
    busy = np.maximum(busy, macs)
    stalled = np.minimum(busy + stall, 100)
    layers = (
        (macs, 0, _style.NAVY, "MACs, of the peak"),
        (busy, macs, _style.BLUE, "busy, but PEs unused"),
        (stalled, busy, _style.VERMILION, "memory stall"),
        (np.minimum(stalled + dispatch, 100), stalled, _style.GREY, "dispatch"),
    )
    for values, base, colour, label in layers:
        axes.stairs(values, edges, baseline=base, fill=True, color=colour, label=label)
    rest = Patch(facecolor="white", edgecolor=_style.GREY, label="fill/drain, idle")
    axes.set_ylim(0, 100)
    axes.set_ylabel("arrays [% of cycles]")
    handles = [*axes.get_legend_handles_labels()[0], rest]
    _style.legend_above(axes, handles)


def _draw_bandwidth(
    axes: Axes, moved: NDArray[np.float64], edges: NDArray[np.float64], limit: int | None
) -> None:
    unit, scale = ("GB/s", 1e9) if max(moved.max(), limit or 0) >= 1e9 else ("MB/s", 1e6)
    axes.stairs(moved / scale, edges, fill=True, color=_style.GREEN)
    axes.set_ylabel(f"memory [{unit}]")
    top = max(moved.max(), limit or 0) / scale or 1.0
    axes.set_ylim(0, 1.18 * top)
    text = "no memory limit in this model"
    if limit:
        axes.axhline(limit / scale, color=_style.TEXT, linewidth=1.2)
        text = f"memory_bw {limit / scale:g} {unit}"
    axes.annotate(
        text,
        (1, limit / scale if limit else top),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=_style.TEXT,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )


def _steps(ops: int) -> int:
    return _STEPS if ops <= _MOST_OPS else min(_STEPS, ops // _OPS_OF_A_STEP)


def _busiest(profile: Profile) -> list[Record]:
    """The records of the first session's device that worked longest."""
    by_device: dict[int, list[Record]] = {}
    for record in profile.records:
        if record.session == 0:
            by_device.setdefault(record.device, []).append(record)
    return max(by_device.values(), key=lambda ops: sum(op.cycles for op in ops), default=[])


def timeline(profile: Profile, path: str | Path, name: str = "") -> Path:
    """Write the picture, in the format of the path's ending; `name` says in its title what ran.

    Of several sessions it shows the first, of several devices the one that worked longest.
    """
    path = Path(path)
    records = _busiest(profile)
    figure = Figure(figsize=(12, 5.6), dpi=_style.DPI, layout="constrained")
    if not any(record.cycles for record in records):
        figure.suptitle("no products were simulated")
        return _style.save(figure, path)
    machine, ops = profile.machines[0], placed(records)
    first = min(start for _, start in ops)
    ops = [(record, start - first) for record, start in ops]
    last = max(start + record.cycles for record, start in ops)
    unit, second = _style.time_unit(last / machine.clock_hz)
    scale = 1 / machine.clock_hz / second
    groups = module_groups(ops)
    heights = [0.32, 2.6, 1.8] if len(groups) > 1 else [0.05, 2.6, 1.8]
    band, use, memory = figure.subplots(3, 1, sharex=True, height_ratios=heights)
    steps = _steps(len(ops))
    edges = np.linspace(0, last, steps + 1)
    means = rates(ops, machine, edges)
    for axes in (use, memory):
        _style.plain(axes)
    _draw_use(use, means, edges * scale)
    limit = bandwidth(machine)
    _draw_bandwidth(memory, means[4] * machine.clock_hz, edges * scale, limit)
    memory.set_xlim(0, last * scale)
    means_over = f"; means over {last / steps:,.0f} cycles" if steps < _STEPS else ""
    memory.set_xlabel(f"simulated time [{unit}]{means_over}")
    _mark(use, memory, ops, groups, scale)
    devices = len({record.device for record in profile.records if record.session == 0})
    which = f", device {records[0].device} of {devices}" if devices > 1 else ""
    counts = f"{_style.count_text(len(ops), 'product')}, {_style.count_text(last, 'cycle')}"
    note = "" if any(op.timeline_data for op in records) else "; means over each product"
    figure.suptitle(f"{_style.title(profile, name)}{which}: {counts}{note}", x=0.01, ha="left")
    if len(groups) > 1:
        _draw_groups(band, groups, scale)
    else:
        band.axis("off")
    return _style.save(figure, path)


def _mark(
    use: Axes, memory: Axes, ops: Placed, groups: list[tuple[str, int, int]], scale: float
) -> None:
    """Lines where a group of modules begins; ticks where an op does."""
    for _, start, _ in groups[1:]:
        for axes in (use, memory):
            axes.axvline(start * scale, color=_style.DARK, linewidth=0.8)
    if len(ops) <= _MOST_OPS:
        starts = [start * scale for _, start in ops]
        use.plot(
            starts,
            [0] * len(starts),
            "|",
            color=_style.DARK,
            markersize=6,
            markeredgewidth=0.8,
            clip_on=False,
            zorder=4,
        )
