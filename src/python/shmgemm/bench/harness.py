"""Rows, goals and interleaved timing: what all benches share.

Goals stand in goals.toml alone. A row's value is the median over rounds; what is measured and its
floor take turns within each round, so that a busy moment of the machine hits both.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

_OPERATORS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
_METRICS = ("p50", "p99", "ratio")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Goal:
    """`metric` of a row compared with a number: "p99 <= 20"."""

    metric: str
    comparison: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Goal:
        words = text.split()
        if len(words) != 3 or words[0] not in _METRICS or words[1] not in _OPERATORS:
            raise ValueError(
                f"goal {text!r}: expected METRIC OPERATOR NUMBER, with a metric of"
                f" {', '.join(_METRICS)} and an operator of {', '.join(_OPERATORS)}"
            )
        try:
            return cls(words[0], words[1], float(words[2]))
        except ValueError:
            raise ValueError(f"goal {text!r}: {words[2]!r} is not a number") from None

    def met(self, metrics: Mapping[str, float | None]) -> bool:
        """False also where the metric was not measured."""
        value = metrics[self.metric]
        return value is not None and _OPERATORS[self.comparison](value, self.number)

    def __str__(self) -> str:
        return f"{self.metric} {self.comparison} {self.number:g}"


@dataclass(frozen=True)
class Row:
    """One measurement. `ratio` is p50 ÷ floor; `met` is None for a row without a goal."""

    name: str
    p50: float
    p99: float | None
    unit: str
    floor_name: str | None
    floor: float | None
    ratio: float | None
    goal: str | None
    met: bool | None


@dataclass(frozen=True)
class Spec:
    """What goals.toml says of a row."""

    name: str
    unit: str
    floor_name: str | None
    goals: tuple[Goal, ...]

    def named(self, **values: str) -> Spec:
        """This one of the rows that the file has once for several, as "{preset}" in its name."""
        return replace(self, name=self.name.format(**values))

    def row(self, p50: float, p99: float | None = None, floor: float | None = None) -> Row:
        ratio = p50 / floor if floor else None
        metrics = {"p50": p50, "p99": p99, "ratio": ratio}
        met = all(goal.met(metrics) for goal in self.goals) if self.goals else None
        goal = ", ".join(map(str, self.goals)) or None
        return Row(self.name, p50, p99, self.unit, self.floor_name, floor, ratio, goal, met)


def goals_file() -> Path:
    """Beside this file once installed; in a source tree, where it is kept."""
    installed = _HERE / "goals.toml"
    return installed if installed.exists() else _HERE.parents[3] / "bench" / "goals.toml"


@cache
def specs(bench: str, path: Path | None = None) -> dict[str, Spec]:
    """The rows of one bench by key, in the file's order; ValueError names file and row."""
    file = path or goals_file()
    rows = tomllib.loads(file.read_text())[bench]
    known = {"name", "unit", "floor_name", "goals"}
    found = {}
    for key, entry in rows.items():
        if unknown := set(entry) - known:
            raise ValueError(f"{file}: {bench}.{key}: unknown {', '.join(sorted(unknown))}")
        try:
            goals = tuple(Goal.parse(text) for text in entry.get("goals", ()))
            found[key] = Spec(entry["name"], entry["unit"], entry.get("floor_name"), goals)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{file}: {bench}.{key}: {error}") from None
    return found


def to_json(rows: Sequence[Row]) -> str:
    return json.dumps({"rows": [asdict(row) for row in rows]}, indent=2)


def table(rows: Sequence[Row]) -> str:
    """For people: one line a row, what was missed marked."""
    heads = ("", "p50", "p99", "unit", "floor", "ratio", "goal", "")
    cells = [heads] + [
        (
            row.name,
            _number(row.p50),
            _number(row.p99),
            row.unit,
            _number(row.floor),
            _number(row.ratio),
            row.goal or "",
            {True: "met", False: "MISSED", None: ""}[row.met],
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    right = {1, 2, 4, 5}
    lines = [
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    floors = dict.fromkeys(f"{row.name}: {row.floor_name}" for row in rows if row.floor_name)
    return "\n".join([*lines, "", "floors (measured in the same run)", *(f"  {f}" for f in floors)])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Timing:
    """Medians over rounds of a round's median and 99th percentile, in the caller's unit."""

    p50: float
    p99: float

    def scaled(self, factor: float) -> Timing:
        return Timing(self.p50 * factor, self.p99 * factor)

    @classmethod
    def of_rounds(cls, rounds: Sequence[Sequence[float]]) -> Timing:
        """From (p50, p99) of each round."""
        return cls(
            statistics.median(first for first, _ in rounds),
            statistics.median(second for _, second in rounds),
        )


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest rank."""
    ordered = sorted(samples)
    return ordered[round((len(ordered) - 1) * share)]


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    samples: int,
    warm: int = 3,
    pause_s: float = 0.0,
) -> dict[str, Timing]:
    """Seconds that each call takes, taking turns for `rounds` rounds of `samples` calls.

    `pause_s` before each turn lets threads of the other side's libraries stop spinning.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    clock = time.perf_counter_ns
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(pause_s)
            for _ in range(warm):
                call()
            taken = []
            for _ in range(samples):
                start = clock()
                call()
                taken.append((clock() - start) / 1e9)
            times[name].append((percentile(taken, 0.5), percentile(taken, 0.99)))
    return {name: Timing.of_rounds(pairs) for name, pairs in times.items()}


def measure(
    subject: str,
    device: str | Mapping[str, Any] | None = None,
    engine: str = "embedded",
    **options: Any,
) -> dict[str, Timing | None]:
    """Run `shmgemm-measure`, the C++ side, on some hardware or the default: "ours" and "floor"."""
    from .. import hardware, settings, sst
    from ..engine import default_engine_path

    path: str = settings.resolve("engine_path", None) or default_engine_path()
    engine_words: list[str] = []
    if engine == "sst":
        path, engine_words = sst.command()
    program = Path(default_engine_path()).with_name("shmgemm-measure")
    words = [str(program), subject, f"engine={path}"]
    words += [f"engine_word={word}" for word in engine_words]
    words += [f"hw.{name}={value}" for name, value in hardware.load(device).parameters.items()]
    words += [f"{name}={value}" for name, value in options.items()]
    answer = json.loads(run(words))
    return {key: Timing.of_rounds(rounds) if rounds else None for key, rounds in answer.items()}


def run_python(module: str, *arguments: str, **environment: str) -> Any:
    """What `python -m module` prints, as JSON; for what needs a process of its own."""
    return json.loads(run([sys.executable, "-m", module, *arguments], **environment))


def run(words: Sequence[str], **environment: str) -> str:
    """Standard output of a program; RuntimeError with its standard error where it fails."""
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(words[0]).name}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@contextlib.contextmanager
def torch_threads(count: int) -> Any:
    """torch's own products on `count` threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
