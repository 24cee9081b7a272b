"""Two reports of `shmgemm bench --json`, row by row: what got better, what got worse.

Where both have a floor their ratios to it are compared, which a busy machine disturbs less, else
the values. The direction is that of the row's goal, else of its unit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import _files

TOLERANCE = 0.10  # beyond which a change is one
_LESS_IS_BETTER = {"ns", "us", "ms", "s", "%", "B", "MB", "cycles", "commands", "wake-ups"}
_MORE_IS_BETTER = {"1/s", "k/s", "M/s", "GB/s", "x", "1"}

Key = tuple[str, str]  # bench ("" in a report of one bench) and row


@dataclass(frozen=True)
class Change:
    """A row of both reports; `by` says which of its figures a and b are: ratio or p50."""

    bench: str
    name: str
    by: str
    unit: str
    a: float
    b: float
    b_to_a: float | None
    verdict: str  # better, worse, same; "" where nobody knows the direction


def read(path: str | Path) -> dict[str, Any]:
    """A report; ValueError names the file and what is wrong with it."""
    with _files.named("cannot read", path):
        text = Path(path).read_bytes()
    expected = "expected what `shmgemm bench ... --json` prints"
    try:
        found = json.loads(text)
    except ValueError as error:  # also bytes that are no text
        raise ValueError(f"{path}: no JSON ({error}); {expected}") from None
    rows = found.get("rows") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: has no list `rows`; {expected}")
    for number, row in enumerate(rows, 1):
        if problem := _problem(row):
            raise ValueError(f"{path}: row {number}: {problem}; {expected}")
    return {**found, "rows": rows}


def _problem(row: Any) -> str | None:
    if not isinstance(row, dict):
        return f"got {type(row).__name__}, expected an object"
    for key in ("name", "unit"):
        if not isinstance(row.get(key), str):
            return f"`{key}` is {row.get(key)!r}, expected a text"
    if not _is_number(row.get("p50")):
        return f"`p50` is {row.get('p50')!r}, expected a number"
    for key in ("floor", "ratio"):
        if row.get(key) is not None and not _is_number(row[key]):
            return f"`{key}` is {row[key]!r}, expected a number or null"
    for key in ("bench", "goal"):
        if row.get(key) is not None and not isinstance(row[key], str):
            return f"`{key}` is {row[key]!r}, expected a text or null"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` of rows in both, `only_a` and `only_b`, and `facts` in which the reports differ."""
    first, second = _by_key(a), _by_key(b)
    return {
        "changes": [_change(key, row, second[key]) for key, row in first.items() if key in second],
        "only_a": [_label(key) for key in first if key not in second],
        "only_b": [_label(key) for key in second if key not in first],
        "facts": {
            name: [before, after]
            for name, before, after in _facts(a, b)
            if before is not None and after is not None and before != after
        },
    }


def _by_key(report: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    return {(row.get("bench") or "", row["name"]): row for row in report["rows"]}


def _label(key: Key) -> str:
    return ": ".join(filter(None, key))


def _facts(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in ("version", "preset", "preset_hash"):
        yield name, a.get(name), b.get(name)
    for name in ("cpu", "cpus", "engine", "torch"):
        before, after = ((report.get("machine") or {}).get(name) for report in (a, b))
        yield name, before, after


def _change(key: Key, a: Mapping[str, Any], b: Mapping[str, Any]) -> Change:
    by = "ratio" if all(row.get("ratio") is not None for row in (a, b)) else "p50"
    before, after = float(a[by]), float(b[by])
    verdict = _verdict(before, after, more_is_better(b))
    unit = "x floor" if by == "ratio" else b["unit"]
    return Change(*key, by, unit, before, after, after / before if before else None, verdict)


def more_is_better(row: Mapping[str, Any]) -> bool | None:
    """By the first comparison of its goal, else by its unit; None where neither says."""
    words = (row.get("goal") or "").split()
    if len(words) >= 2 and words[1] in ("<=", ">="):
        return bool(words[1] == ">=")
    if row["unit"] in _MORE_IS_BETTER:
        return True
    return False if row["unit"] in _LESS_IS_BETTER else None


def _verdict(before: float, after: float, more: bool | None) -> str:
    if more is None:
        return ""
    good, bad = (after, before) if more else (before, after)
    if good > bad * (1 + TOLERANCE):
        return "better"
    return "worse" if bad > good * (1 + TOLERANCE) else "same"


def worse(found: Mapping[str, Any]) -> list[Change]:
    return [change for change in found["changes"] if change.verdict == "worse"]


def to_json(found: Mapping[str, Any]) -> str:
    return json.dumps({**found, "changes": [asdict(c) for c in found["changes"]]}, indent=2)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """For people: a line a row, then what is in one report alone and what else differs."""
    cells: list[Sequence[str]] = [("", "A", "B", "unit", "B/A", "")]
    for change in found["changes"]:
        times = "" if change.b_to_a is None else f"{change.b_to_a:.3g}"
        label, verdict = _label((change.bench, change.name)), change.verdict
        mark = "" if verdict == "same" else verdict
        cells.append((label, f"{change.a:.4g}", f"{change.b:.4g}", change.unit, times, mark))
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    for line in cells:
        yield "  ".join(
            text.rjust(width) if column in (1, 2, 4) else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
    for which in ("a", "b"):
        if rows := found[f"only_{which}"]:
            yield from ("", f"only in {which.upper()}:", *(f"  {row}" for row in rows))
    if found["facts"]:
        yield from ("", "not alike:")
        yield from (f"  {name}: {a} and {b}" for name, (a, b) in found["facts"].items())
