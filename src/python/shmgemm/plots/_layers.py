"""Where the cycles went, layer by layer: a bar for each, cut into busy, fill/drain, memory stall
and dispatch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .._tables import Group, groups
from . import _style

if TYPE_CHECKING:
    from ..profiling import Profile, Record

MOST_ROWS = 40
_PARTS = (
    ("busy", "busy_cycles", _style.BLUE),
    ("fill/drain", "fill_drain_cycles", _style.SKY),
    ("memory stall", "memory_stall_cycles", _style.VERMILION),
    ("dispatch", "dispatch_cycles", _style.GREY),
)


def rows(records: Sequence[Record]) -> list[Group]:
    """One group per layer. Of more than MOST_ROWS layers those of one kind share a row: the first
    number in their paths becomes *, or, where that is not enough, all do. Of more kinds than that
    the cheapest share the last row."""
    merged = found = groups(records)
    for numbers in (1, 0):  # 0: all
        if len(merged) <= MOST_ROWS:
            return merged
        merged = _by_kind(found, numbers)
    if len(merged) <= MOST_ROWS:
        return merged
    costly = sorted(merged, key=lambda group: -group.cycles)[: MOST_ROWS - 1]
    kept = [group for group in merged if group in costly]
    rest = [group for group in merged if group not in costly]
    return [*kept, _sum(f"{len(rest)} more kinds of layers", rest)]


def _by_kind(layers: Sequence[Group], numbers: int) -> list[Group]:
    kinds: dict[str, list[Group]] = {}
    for group in layers:
        label = re.sub(r"(?<![^.])\d+(?![^.])", "*", group.label, count=numbers)
        kinds.setdefault(label, []).append(group)
    merged = []
    for label, members in kinds.items():
        more = f"  ({len(members)} layers)" if len(members) > 1 else ""
        merged.append(_sum(label + more, members))
    return merged


def _sum(label: str, members: Sequence[Group]) -> Group:
    total = Group(label)
    for group in members:
        for name in ("ops", "cycles", "macs", "peak_macs", *(part[1] for part in _PARTS)):
            setattr(total, name, getattr(total, name) + getattr(group, name))
        total.simulated_s += group.simulated_s
    return total


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"


def _fit(label: str, most: int = 48) -> str:
    return label if len(label) <= most else "…" + label[1 - most :]


def layers(profile: Profile, path: str | Path, name: str = "") -> Path:
    """Write the picture, in the format of the path's ending; `name` says in its title what ran.

    Of several sessions it shows the first.
    """
    path = Path(path)
    found = rows([record for record in profile.records if record.session == 0])
    whole = sum(group.cycles for group in found)
    places_shown = max(len(found), 3)  # a lone bar is no wall
    height = 1.4 + 0.24 * places_shown
    figure = Figure(figsize=(11, height), dpi=_style.DPI, layout="constrained")
    axes = figure.add_subplot()
    if not whole:
        axes.set_axis_off()
        axes.set_title("no products were simulated", loc="left")
        return _style.save(figure, path)
    machine = profile.machines[0]
    longest = max(group.cycles for group in found)
    unit, second = _style.time_unit(longest / machine.clock_hz)
    scale = 1 / machine.clock_hz / second
    places = range(len(found))
    left = [0.0] * len(found)
    for label, part, colour in _PARTS:
        widths = [getattr(group, part) * scale for group in found]
        axes.barh(places, widths, left=left, height=0.75, color=colour, label=label)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, group in enumerate(found):
        share, use = (_percent(x) for x in (group.cycles / whole, group.utilization))
        text = f"{share}, {use} of peak"
        axes.annotate(
            text,
            (group.cycles * scale, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=_style.TEXT,
        )
    _style.plain(axes)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(places, [_fit(group.label) for group in found], fontsize=8)
    axes.set_ylim(places_shown - 0.4, -0.6)
    axes.set_xlim(0, longest * scale * 1.2)
    axes.set_xlabel(f"simulated time [{unit}]; beside each bar: share of the run, MACs of the peak")
    figure.suptitle(
        f"{_style.title(profile, name)}: {_style.count_text(whole, 'cycle')} by layer",
        x=0.01,
        ha="left",
    )
    _style.legend_above(axes, axes.get_legend_handles_labels()[0])
    return _style.save(figure, path)
