"""What `shmgemm validate` runs: each part compares timing with something that is not ours.

A part is a module with `run(Options) -> dict` (what goes into the JSON), `passed(result) -> bool`
and `table(result) -> lines`. To add one, name its module here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

PARTS = {
    "scalesim": "closed forms against SCALE-Sim 3.0.0 itself, in an environment of its own",
    "tpu_v3": "the preset against measured GEMMs, beside five published simulators",
    "arrays": "systolic and ws_double_buffered against the register-level array",
}


@dataclass(frozen=True)
class Options:
    """How much to compare, and where progress goes."""

    cases: int = 300
    seed: int = 1
    progress: Callable[[str], None] = lambda _: None


class Part(Protocol):
    """A module of this package that `PARTS` names."""

    def run(self, options: Options) -> dict[str, Any]: ...
    def passed(self, result: dict[str, Any]) -> bool: ...
    def table(self, result: dict[str, Any]) -> Iterable[str]: ...


def part(name: str) -> Part:
    return cast(Part, import_module(f".{name}", __name__))
