"""SCALE-Sim's GEMM csv: one header line, then `name, M, N, K,` for each layer.

The trailing comma, without which SCALE-Sim drops K, may be missing. A fifth column, the sparsity
ratio, is checked and has no effect, as in SCALE-Sim while sparsity is off. Errors name file and
line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import _files
from .config import decode

_MAX_DIMENSION = 2**32 - 1


@dataclass(frozen=True)
class Layer:
    """C[M×N] = A[M×K] B[K×N]; IFMAP is A, FILTER is B, OFMAP is C. `place` is file and line."""

    name: str
    m: int
    n: int
    k: int
    place: str = "layer"


def read(path: str | Path) -> list[Layer]:
    """The layers, in order. Raises ValueError for a malformed line, OSError for a missing file."""
    layers = [_layer(f"{path}:{line}", fields) for line, fields in _rows(path)]
    if not layers:
        raise ValueError(f"{path}:1: no layers: expected a header line, then 'name, M, N, K,'")
    return layers


def check_layout(path: str | Path) -> None:
    """Check a layout csv. Only custom layouts would use its figures, and they are not modelled."""
    for line, fields in _rows(path):
        for position, field in enumerate(fields[1:], 2):
            if not _is_integer(field):
                raise ValueError(f"{path}:{line}: field {position}: {field!r}: expected a number")


def write(path: str | Path, layers: list[Layer]) -> None:
    """A csv that both SCALE-Sim and `read` accept."""
    rows = [f"{layer.name}, {layer.m}, {layer.n}, {layer.k},\n" for layer in layers]
    Path(path).write_text("".join(["Layer, M, N, K,\n", *rows]), encoding="utf-8")


def _rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every line after the first that is not blank."""
    with _files.named("cannot read", path):
        content = Path(path).read_bytes()
    lines = decode(str(path), content).splitlines()
    if not lines:
        raise ValueError(f"{path}:1: the file is empty: expected a header line")
    header = _fields(lines[0])
    if len(header) >= 4 and all(_is_integer(field) for field in header[1:4]):
        raise ValueError(
            f"{path}:1: {lines[0].strip()!r}: expected a header: SCALE-Sim skips the first line"
        )
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            yield number, _fields(line)


def _fields(line: str) -> list[str]:
    fields = [field.strip() for field in line.split(",")]
    return fields[:-1] if fields[-1] == "" else fields


def _is_integer(text: str) -> bool:
    return text.removeprefix("-").isdigit() and text.isascii()


def _layer(place: str, fields: list[str]) -> Layer:
    if not 4 <= len(fields) <= 5:
        hint = " (a convolution? give its GEMM)" if len(fields) >= 8 else ""
        raise ValueError(
            f"{place}: {len(fields)} fields: expected 'name, M, N, K,' and at most a sparsity"
            f" ratio{hint}"
        )
    sizes = []
    for dimension, text in zip("MNK", fields[1:4], strict=True):
        if not _is_integer(text) or not 1 <= int(text[:30]) <= _MAX_DIMENSION:
            raise ValueError(
                f"{place}: {dimension} = {text!r}: expected a whole number from 1 to"
                f" {_MAX_DIMENSION}"
            )
        sizes.append(int(text))
    if len(fields) == 5 and not _is_ratio(fields[4]):
        raise ValueError(f"{place}: {fields[4]!r}: expected a sparsity ratio such as 2:4")
    m, n, k = sizes
    return Layer(fields[0], m, n, k, place)


def _is_ratio(text: str) -> bool:
    parts = [part.strip() for part in text.split(":")]
    return len(parts) == 2 and all(_is_integer(part) and int(part[:30]) >= 1 for part in parts)
