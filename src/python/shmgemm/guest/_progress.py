"""A line on stderr that moves while something is built: what, how far, how long.

On a terminal it is rewritten; elsewhere a line comes every quarter of a minute. A percentage counts
files compiled against how many there were the last time this was measured; it ends below 100.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_COMPILED = ("  CC", "  AS", "  AR", "  LD", "  HOSTCC", "  GEN")


class Progress:
    """Where `show` is False nothing is written."""

    def __init__(self, show: bool) -> None:
        self._show = show
        self._what = ""
        self._begin = 0.0
        self._count = 0
        self._expected = 0
        self._told = 0.0

    @contextmanager
    def step(self, what: str, expected: int = 0) -> Iterator[None]:
        """Something that compiles about `expected` files (0: not known)."""
        self._what, self._expected, self._count = what, expected, 0
        self._begin = time.monotonic()
        self._tell(force=True)
        yield
        self._write(f"{what}: done in {time.monotonic() - self._begin:.0f} s", end=True)

    def line(self, text: str) -> None:
        """A line of the compiler's output."""
        if text.startswith(_COMPILED):
            self._count += 1
        self._tell()

    def _tell(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._told < (0.2 if sys.stderr.isatty() else 15.0):
            return
        self._told = now
        text = f"{self._what} {now - self._begin:.0f} s"
        if self._expected:
            text += f", {min(99, 100 * self._count // self._expected)} %"
        self._write(text, end=False)

    def _write(self, text: str, end: bool) -> None:
        if not self._show:
            return
        if sys.stderr.isatty():
            print(f"\r\033[Kshmgemm: {text}", end="\n" if end else "", file=sys.stderr, flush=True)
        else:
            print(f"shmgemm: {text}", file=sys.stderr, flush=True)
