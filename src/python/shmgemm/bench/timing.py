"""What the timing models cost: simulated cycles a second, and how long one GEMM's timing takes.

Measured by `shmgemm-measure` on the model alone, without engine, session or Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import _core, hardware
from .harness import Row, Timing, measure, progress, specs

_LARGE = (1024, 1024, 1024)
_LARGEST = (16384, 16384, 16384)
_MINILM = ((50, 384, 384), (50, 1536, 384), (50, 384, 1536), (5, 384, 384))  # M, N, K
_DECODE_AND_PREFILL = ((1, 768, 768), (512, 768, 768))
# Models whose time does not depend on the shape: their cycles are a formula.
CLOSED_FORMS = ("scalesim_is", "scalesim_os", "scalesim_ws", "simt", "ws_double_buffered")


def run(quick: bool = False) -> list[Row]:
    """All rows of [timing] in goals.toml, those with {names} once for each."""
    return [*_rates(quick), *_default_preset(quick), *_every_preset(quick), *_closed_forms(quick)]


def _rates(quick: bool) -> Iterator[Row]:
    rows = specs("timing")
    for preset in hardware.presets():
        spec = rows[f"rate_{preset}"] if f"rate_{preset}" in rows else rows["rate"]
        yield spec.named(preset=preset).row(_rate(preset, _LARGE, quick))


def _rate(preset: str, shape: tuple[int, int, int], quick: bool) -> float:
    """Simulated cycles a microsecond."""
    cycles = _core.simulate_gemm(hardware.load(preset).parameters, *shape)["cycles"]
    ours, _ = _time(preset, shape, quick)
    return float(cycles / ours.p50)


def _default_preset(quick: bool) -> Iterator[Row]:
    rows = specs("timing")
    for key, shape in (("tpu_v3_1024", _LARGE), ("tpu_v3_16384", _LARGEST)):
        ours, floor = _time("tpu_v3", shape, quick)
        yield rows[key].row(ours.p50 / 1e3, ours.p99 / 1e3, floor.p50 / 1e3)


def _every_preset(quick: bool) -> Iterator[Row]:
    for preset in hardware.presets():
        for shape in (*_MINILM, *_DECODE_AND_PREFILL):
            spec = specs("timing")["shape"].named(preset=preset, shape="x".join(map(str, shape)))
            yield spec.row(_rate(preset, shape, quick))


def _closed_forms(quick: bool) -> Iterator[Row]:
    for model in CLOSED_FORMS:
        ours, floor = _time({"model": model}, _LARGE, quick)
        spec = specs("timing")["closed_form"].named(model=model)
        yield spec.row(ours.p50, ours.p99, floor.p50)


def _time(
    device: str | dict[str, Any], shape: tuple[int, int, int], quick: bool
) -> tuple[Timing, Timing]:
    """Microseconds of one GEMM's timing, and of a bare event."""
    m, n, k = shape
    label = device if isinstance(device, str) else device["model"]
    progress(f"timing: {m}x{n}x{k} on {label}")
    rounds, samples = (2, 5) if quick else (5, 100)
    found = measure("timing", device, m=m, n=n, k=k, rounds=rounds, samples=samples)
    ours, floor = found["ours"], found["floor"]
    assert ours is not None
    assert floor is not None
    return ours, floor
