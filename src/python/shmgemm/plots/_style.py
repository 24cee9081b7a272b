"""What the pictures share: colours that the colour-blind can tell apart (Okabe and Ito's), titles,
units.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _files

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..profiling import Profile

BLUE, SKY, GREEN, ORANGE, VERMILION = "#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00"
PURPLE, VIOLET, NAVY, DARK = "#cc79a7", "#7f3c8d", "#08306b", "#444444"
GREY, LINES, TEXT = "#bbbbbb", "#dddddd", "#555555"
DPI = 130


def save(figure: Figure, path: Path) -> Path:
    """In the format of the path's ending; an OSError names the file."""
    with _files.named("cannot write", path):
        figure.savefig(path)
    return path


def plain(axes: Axes) -> None:
    """No box around it, a faint grid behind it."""
    axes.grid(True, which="major", color=LINES, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_above(axes: Axes, handles: Sequence[Artist]) -> None:
    """One line of entries between the title and the axes, where they hide nothing."""
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=8,
        borderpad=0,
    )


def title(profile: Profile, name: str) -> str:
    """`minilm on tpu_v3 (model systolic, 940 MHz)`; of several sessions it is the first's."""
    machine, sessions = profile.machines[0], len(profile.machines)
    model = machine.parameters.get("model", "unknown")
    device = f"{machine.preset} (model {model}, {hertz_text(machine.clock_hz)})"
    device += f", first of {sessions} sessions" if sessions > 1 else ""
    return f"{name} on {device}" if name else device


def hertz_text(hertz: float) -> str:
    for unit, scale in (("GHz", 1e9), ("MHz", 1e6), ("kHz", 1e3)):
        if hertz >= scale and (unit != "GHz" or hertz % 1e8 == 0):
            return f"{hertz / scale:g} {unit}"
    return f"{hertz:g} Hz"


def flops_text(flops: float) -> str:
    for unit, scale in (("PFLOP/s", 1e15), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9), ("MFLOP/s", 1e6)):
        if flops >= scale:
            return f"{flops / scale:.3g} {unit}"
    return f"{flops:.3g} FLOP/s"


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which `seconds` is a number from 1 on, and the seconds in one of it."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6)):
        if seconds >= scale:
            return unit, scale
    return "ns", 1e-9


def count_text(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")
