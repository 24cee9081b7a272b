"""How long square products take, against their size: a line for each way to compute them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from . import _style

if TYPE_CHECKING:
    from ..bench.sizes import Point

_COLOURS = (_style.DARK, _style.BLUE, _style.GREEN, _style.PURPLE, _style.VERMILION)
_MARKERS = ("o", "s", "^", "D", "v")


def check_ending(path: Path) -> None:
    """ValueError where the path does not end as a picture does."""
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(f"{path}: expected a picture's ending: {', '.join(sorted(known))}")


def _time_text(us: float, _: int = 0) -> str:
    unit, scale = _style.time_unit(us / 1e6)
    return f"{us / 1e6 / scale:g} {unit}"


def sizes(points: Sequence[Point], path: str | Path) -> Path:
    """Write the picture, in the format of the path's ending: medians, both axes logarithmic."""
    path = Path(path)
    figure = Figure(figsize=(8, 5), dpi=_style.DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({point.size for point in points})
    for index, name in enumerate(dict.fromkeys(point.series for point in points)):
        line = sorted((p.size, p.p50_us) for p in points if p.series == name)
        axes.plot(
            [size for size, _ in line],
            [us for _, us in line],
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=5,
            markerfacecolor="white",
            linewidth=1.5,
            label=name,
        )
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_time_text))
    axes.set_xlabel("n, for products of two n by n matrices of float32")
    axes.set_ylabel("time of one blocking call, median")
    axes.set_title("Time of a square product by its size", loc="left")
    _style.plain(axes)
    axes.legend(loc="lower right", frameon=False)
    return _style.save(figure, path)
