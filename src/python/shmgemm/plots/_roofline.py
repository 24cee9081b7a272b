"""The roofline of a profile as a picture.

One point per GEMM shape: how much arithmetic each byte of memory traffic buys, and how fast the
simulated device did it, against what the device could do at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .._activity import bandwidth
from .._tables import shape_text
from . import _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..profiling import Profile, Record

MOST_SHAPES = 8  # in the legend; the shapes with the fewest cycles share one entry
_COLOURS = (
    _style.BLUE,
    _style.VERMILION,
    _style.GREEN,
    _style.PURPLE,
    _style.ORANGE,
    _style.SKY,
    _style.VIOLET,
    _style.DARK,
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")


@dataclass(frozen=True)
class Point:
    """All ops of one shape: FLOP per byte of memory traffic, FLOP/s, share of all cycles."""

    label: str
    intensity: float
    flops: float
    share: float


def points(records: Iterable[Record]) -> list[Point]:
    """One point per op shape with memory traffic, the one with the most cycles first."""
    by_shape: dict[tuple[int, int, int, int], list[Record]] = {}
    for record in records:
        by_shape.setdefault(record.shape, []).append(record)
    whole = sum(record.cycles for ops in by_shape.values() for record in ops)
    found = []
    for shape, ops in by_shape.items():
        moved = sum(record.memory_bytes for record in ops)
        seconds = sum(record.simulated_s for record in ops)
        flop = 2 * sum(record.macs for record in ops)
        share = sum(record.cycles for record in ops) / whole if whole else 0
        if moved and seconds:
            count = f"{len(ops)} op" + ("s" if len(ops) != 1 else "")
            label = f"{shape_text(shape)}, {count}, {100 * share:.0f} % of cycles"
            found.append(Point(label, flop / moved, flop / seconds, share))
    return sorted(found, key=lambda point: -point.share)


def _draw_roofs(axes: Axes, peak: float, memory: int | None, low: float, high: float) -> None:
    ridge = peak / memory if memory else low
    if memory:
        left = [low, max(low, min(ridge, high))]
        axes.plot(left, [x * memory for x in left], color=_style.TEXT, linewidth=1.5)
        middle = (left[0] * left[1]) ** 0.5
        axes.annotate(
            f"memory {memory / 1e9:g} GB/s",
            (middle, middle * memory),
            xytext=(-8, 4),
            textcoords="offset points",
            ha="right",
            color=_style.TEXT,
        )
    axes.plot([max(low, ridge), max(high, ridge)], [peak, peak], color=_style.TEXT, linewidth=1.5)
    limit = "" if memory else ", no memory limit in this model"
    axes.annotate(
        f"peak {_style.flops_text(peak)}{limit}",
        (high, peak),
        xytext=(-4, 5),
        textcoords="offset points",
        ha="right",
        color=_style.TEXT,
    )


def _decades(least: float, most: float) -> tuple[float, float]:
    """Powers of ten around both, with some room: a tick at each end, and at least one between."""
    low, high = floor(log10(least / 1.5)), ceil(log10(most * 1.5))
    return 10.0**low, 10.0 ** max(high, low + 2)


def roofline(profile: Profile, path: str | Path, name: str = "") -> Path:
    """Write the picture, in the format of the path's ending; `name` says in its title what ran.

    Of several sessions it shows the first.
    """
    path = Path(path)
    records = [record for record in profile.records if record.session == 0]
    figure = Figure(figsize=(9, 5.5), dpi=_style.DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity [FLOP per byte of memory traffic]")
    axes.set_ylabel("speed in simulated time [FLOP/s]")
    axes.xaxis.set_major_formatter("{x:g}")
    _style.plain(axes)
    found = points(records)
    if not found:
        axes.set_title("no products were simulated", loc="left")
        return _style.save(figure, path)
    machine = profile.machines[0]
    peak = 2.0 * max(r.peak_macs_per_cycle for r in records) * machine.clock_hz
    memory = bandwidth(machine)
    xs = [point.intensity for point in found] + ([peak / memory] if memory else [])
    low, high = _decades(min(xs), max(xs))
    _draw_roofs(axes, peak, memory, low, high)
    for index, point in enumerate(found):
        shown = index < MOST_SHAPES
        axes.scatter(
            point.intensity,
            point.flops,
            s=90,
            marker=_MARKERS[index] if shown else ".",
            facecolor="none"
            if shown
            else _style.GREY,  # equal points lie on each other: see through
            edgecolor=_COLOURS[index] if shown else _style.GREY,
            linewidth=1.8,
            label=point.label if shown else None,
            zorder=3 if shown else 2,
        )
    axes.set_xlim(low, high)
    axes.set_ylim(_decades(min(point.flops for point in found), peak))
    count = _style.count_text(len(records), "product")
    axes.set_title(f"{_style.title(profile, name)}: {count}", loc="left")
    rest = len(found) - MOST_SHAPES
    title = "MxNxK" + (f" (grey: {rest} more shapes)" if rest > 0 else "")
    axes.legend(title=title, loc="best", frameon=False, alignment="left")
    return _style.save(figure, path)
