"""The roofline of a profile as a picture. Needs matplotlib.

One point per GEMM shape: how much arithmetic each byte of memory traffic buys, and how fast the
simulated device did it, against what the device could do at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from . import _core, _files
from ._tables import shape_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .profiling import Machine, Profile, Record

MOST_SHAPES = 8  # in the legend; the shapes with the fewest cycles share one entry
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#444444")
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


def bandwidth(machine: Machine) -> int | None:
    """Bytes per second between the device and its memory, or None where its model sets no limit."""
    model = machine.parameters.get("model")
    for info in _core.models():
        if info.name != model:
            continue
        for parameter in info.parameters:
            if parameter.unit == "bytes/s" and parameter.name in machine.parameters:
                text = machine.parameters[parameter.name]
                return _core.parse_quantity(parameter.name, text, "bytes/s")
    return None


def _draw_roofs(axes: Axes, peak: float, memory: int | None, low: float, high: float) -> None:
    ridge = peak / memory if memory else low
    if memory:
        left = [low, max(low, min(ridge, high))]
        axes.plot(left, [x * memory for x in left], color="#555555", linewidth=1.5)
        middle = (left[0] * left[1]) ** 0.5
        axes.annotate(
            f"memory {memory / 1e9:g} GB/s",
            (middle, middle * memory),
            xytext=(-8, 4),
            textcoords="offset points",
            ha="right",
            color="#555555",
        )
    axes.plot([max(low, ridge), max(high, ridge)], [peak, peak], color="#555555", linewidth=1.5)
    limit = "" if memory else ", no memory limit in this model"
    axes.annotate(
        f"peak {_flops_text(peak)}{limit}",
        (high, peak),
        xytext=(-4, 5),
        textcoords="offset points",
        ha="right",
        color="#555555",
    )


def _flops_text(flops: float) -> str:
    for unit, scale in (("PFLOP/s", 1e15), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9), ("MFLOP/s", 1e6)):
        if flops >= scale:
            return f"{flops / scale:.3g} {unit}"
    return f"{flops:.3g} FLOP/s"


def _save(figure: Figure, path: Path) -> Path:
    with _files.named("cannot write", path):
        figure.savefig(path)
    return path


def roofline(profile: Profile, path: str | Path) -> Path:
    """Write the picture, in the format of the path's ending; of several machines, the first."""
    path = Path(path)
    records = [record for record in profile.records if record.session == 0]
    figure = Figure(figsize=(9, 5.5), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("arithmetic intensity [FLOP per byte of memory traffic]")
    axes.set_ylabel("speed in simulated time [FLOP/s]")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    found = points(records)
    if not found:
        axes.set_title("no products were simulated", loc="left")
        return _save(figure, path)
    machine = profile.machines[0]
    peak = 2.0 * max(r.peak_macs_per_cycle for r in records) * machine.clock_hz
    memory = bandwidth(machine)
    xs = [point.intensity for point in found] + ([peak / memory] if memory else [])
    low, high = min(xs) / 3, max(xs) * 3
    _draw_roofs(axes, peak, memory, low, high)
    for index, point in enumerate(found):
        shown = index < MOST_SHAPES
        axes.scatter(
            point.intensity,
            point.flops,
            s=90,
            marker=_MARKERS[index] if shown else ".",
            facecolor="none" if shown else "#bbbbbb",  # equal points lie on each other: see through
            edgecolor=_COLOURS[index] if shown else "#bbbbbb",
            linewidth=1.8,
            label=point.label if shown else None,
            zorder=3 if shown else 2,
        )
    axes.set_xlim(low, high)
    axes.set_ylim(min(point.flops for point in found) / 4, peak * 2.5)
    axes.set_title(f"{machine.preset}: {len(records)} products", loc="left")
    rest = len(found) - MOST_SHAPES
    title = "MxNxK" + (f" (grey: {rest} more shapes)" if rest > 0 else "")
    axes.legend(title=title, loc="best", frameon=False, alignment="left")
    return _save(figure, path)
