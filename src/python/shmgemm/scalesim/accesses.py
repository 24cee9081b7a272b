"""When the folds of SCALE-Sim 3.0.0 touch their SRAMs, in closed form.

The tool lists, cycle by cycle, which words each SRAM serves (`compute/systolic_compute_*.py`).
Within a fold these words form one block: a rectangle of `height` words for each of `width` lanes,
and where the operand streams through the array, lane i begins i cycles later (`skew_matrix`). Folds
run row folds first and do not overlap, so any access's cycle follows from its rank without a list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from .config import Architecture
from .topology import Layer


@dataclass(frozen=True)
class Block:
    """One fold's accesses of one operand; `begin` in cycles from the fold's first."""

    begin: int
    height: int
    width: int
    skewed: bool

    @property
    def words(self) -> int:
        return self.height * self.width

    @property
    def end(self) -> int:
        """The cycle of the last access."""
        return self.begin + self.height - 1 + (self.width - 1 if self.skewed else 0)

    def cycle_of(self, rank: int) -> int:
        """The cycle of access number `rank`, from 0."""
        if not self.skewed:
            return self.begin + rank // self.width
        diagonals = range(self.height + self.width - 1)
        return self.begin + bisect_right(diagonals, rank, key=self._words_up_to)

    def _words_up_to(self, diagonal: int) -> int:
        short, long = sorted((self.height, self.width))
        if diagonal < short:
            return (diagonal + 1) * (diagonal + 2) // 2
        if diagonal < long:
            return short * (short + 1) // 2 + (diagonal - short + 1) * short
        left = self.height + self.width - 2 - diagonal
        return self.words - left * (left + 1) // 2


@dataclass(frozen=True)
class Stream:
    """All accesses of one operand of a layer, in order.

    `block(fr, fc)` is that of row fold fr and column fold fc. `passes` says how often each word is
    read; the passes follow each other over the whole operand or, with `by_column_fold`, over the
    words of one column fold after the other. `padded_words` counts the operand once, in whole
    folds.
    """

    row_folds: int
    col_folds: int
    fold_cycles: int
    block: Callable[[int, int], Block]
    passes: int
    padded_words: int
    by_column_fold: bool = False

    @property
    def words(self) -> int:
        last = self.col_folds - 1
        return last * self.column_words(0) + self.column_words(last)

    def column_words(self, fc: int) -> int:
        last = self.row_folds - 1
        return last * self.block(0, fc).words + self.block(last, fc).words

    @property
    def first_cycle(self) -> int:
        return self.block(0, 0).begin

    @property
    def last_cycle(self) -> int:
        fr, fc = self.row_folds - 1, self.col_folds - 1
        return (fc * self.row_folds + fr) * self.fold_cycles + self.block(fr, fc).end

    def cycle_of(self, rank: int) -> int:
        """The cycle of access number `rank`, from 0."""
        fc = min(rank // self.column_words(0), self.col_folds - 1)
        rank -= fc * self.column_words(0)
        words = self.block(0, fc).words
        fr = min(rank // words, self.row_folds - 1)
        fold = fc * self.row_folds + fr
        return fold * self.fold_cycles + self.block(fr, fc).cycle_of(rank - fr * words)


@dataclass(frozen=True)
class Streams:
    """The three operands' accesses."""

    ifmap: Stream
    filter: Stream
    ofmap: Stream


def streams(architecture: Architecture, layer: Layer) -> Streams:
    """The accesses of a layer.

    Across the array's rows and columns lie M and N (os), K and N (ws), K and M (is); K, M or N
    streams. The stationary operand of ws and is enters bottom row first, so a fold that leaves rows
    empty begins that much later; os puts its outputs out in the same order.
    """
    rows, cols = architecture.rows, architecture.cols
    across_rows, across_cols, streamed = {
        "os": (layer.m, layer.n, layer.k),
        "ws": (layer.k, layer.n, layer.m),
        "is": (layer.k, layer.m, layer.n),
    }[architecture.dataflow]
    row_folds, col_folds = -(-across_rows // rows), -(-across_cols // cols)

    def used_rows(fr: int) -> int:
        return min(rows, across_rows - fr * rows)

    def used_cols(fc: int) -> int:
        return min(cols, across_cols - fc * cols)

    outputs_stay = architecture.dataflow == "os"
    fold_cycles = (1 if outputs_stay else 2) * rows + cols + streamed - 2

    def stream(
        block: Callable[[int, int], Block], passes: int, padded: int, by_column_fold: bool = False
    ) -> Stream:
        return Stream(row_folds, col_folds, fold_cycles, block, passes, padded, by_column_fold)

    if outputs_stay:
        return Streams(
            stream(
                lambda fr, fc: Block(0, streamed, used_rows(fr), True),
                col_folds,
                row_folds * rows * streamed,
            ),
            stream(
                lambda fr, fc: Block(0, streamed, used_cols(fc), True),
                row_folds,
                col_folds * cols * streamed,
                by_column_fold=True,
            ),
            stream(
                lambda fr, fc: Block(
                    streamed - 1 + rows - used_rows(fr), used_rows(fr), used_cols(fc), True
                ),
                1,
                layer.m * layer.n,
            ),
        )
    stationary = stream(
        lambda fr, fc: Block(rows - used_rows(fr), used_rows(fr), used_cols(fc), False),
        1,
        across_rows * col_folds * cols,
    )
    moving = stream(
        lambda fr, fc: Block(rows, streamed, used_rows(fr), True),
        col_folds,
        row_folds * rows * streamed,
    )
    ofmap = stream(
        lambda fr, fc: Block(2 * rows - 1, streamed, used_cols(fc), True),
        row_folds,
        layer.m * layer.n,
    )
    if architecture.dataflow == "ws":
        return Streams(moving, stationary, ofmap)
    return Streams(stationary, moving, ofmap)
