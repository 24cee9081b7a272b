"""Text for a terminal of 80 columns: sections, and tables whose cells wrap."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 80


def section(title: str) -> Iterable[str]:
    """A blank line and the title."""
    return ("", *textwrap.wrap(title, WIDTH))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Columns as wide as they must be, no wider than 24; what does not fit is wrapped."""
    last = len(headers) - 1
    widths = [min(24, max(len(row[i]) for row in (headers, *rows))) for i in range(last)]
    widths.append(WIDTH - 2 - sum(widths) - 2 * last)
    for row in (headers, *rows):
        cells = [
            textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)
        ]
        for line in range(max(map(len, cells))):
            parts = [cell[line] if line < len(cell) else "" for cell in cells]
            padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
            yield ("  " + "  ".join(padded)).rstrip()


def columns(labels: Sequence[str], values: Sequence[Sequence[str]]) -> Iterable[str]:
    """One column for each of `values` beside the labels, as many side by side as fit.

    Values are right-aligned; what is wider than the terminal allows is cut, with an ellipsis.
    """
    first = max(map(len, labels))
    room = WIDTH - first
    blocks: list[list[list[str]]] = [[]]
    for value in values:
        column = [_cut(cell, room - 2) for cell in value]
        if blocks[-1] and sum(map(_width, [*blocks[-1], column])) > room:
            blocks.append([])
        blocks[-1].append(column)
    for number, block in enumerate(blocks):
        if number > 0:
            yield ""
        yield from _side_by_side(first, labels, block)


def _width(column: Sequence[str]) -> int:
    return 2 + max(map(len, column))


def _side_by_side(
    first: int, labels: Sequence[str], block: Sequence[Sequence[str]]
) -> Iterable[str]:
    widths = [max(map(len, column)) for column in block]
    for label, *cells in zip(labels, *block, strict=True):
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        yield "  ".join((label.ljust(first), *aligned)).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
