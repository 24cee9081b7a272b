"""`shmgemm info compare`: presets side by side, with what a few GEMMs take on each.

Peak and balance are of the hardware, the rest what its timing model says for float32 operands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .. import _core, hardware
from .._tables import seconds_text
from .._version import __version__
from . import _layout

DEFAULT_GEMMS = ("256x256x256", "1024x1024x1024", "1x1024x1024", "512x1536x384")


def parse_gemm(text: str) -> tuple[int, int, int]:
    """M, N and K of "MxNxK"; ValueError where it is not of this form."""
    if not re.fullmatch(r"[0-9]+x[0-9]+x[0-9]+", text):
        raise ValueError(f"--gemm {text!r}: expected MxNxK, such as 1024x1024x1024")
    m, n, k = map(int, text.split("x"))
    return m, n, k


def compare(names: Sequence[str], gemms: Sequence[str]) -> dict[str, Any]:
    """Facts and timings of presets or TOML files.

    Raises ValueError or FileNotFoundError for hardware that cannot be loaded, ValueError for a bad
    GEMM, OverflowError for one that a model cannot count.
    """
    shapes = [parse_gemm(text) for text in gemms]
    return {
        "version": __version__,
        "presets": [_column(hardware.load(name), shapes) for name in names],
    }


def _column(device: hardware.Hardware, shapes: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    timings = [_core.simulate_gemm(device.parameters, *shape) for shape in shapes]
    macs = _core.simulate_gemm(device.parameters, 1, 1, 1)["peak_macs_per_cycle"]
    peak = 2 * macs * device.clock_hz
    bandwidth = _quantities(device, "bytes/s").get("memory_bw")
    return {
        "name": device.name,
        "digest": device.digest,
        "model": device.model,
        "clock_hz": device.clock_hz,
        "peak_flops": peak,
        "memory_bytes_per_s": bandwidth,
        "on_chip_bytes": _on_chip_bytes(device),
        "balance_flop_per_byte": peak / bandwidth if bandwidth else None,
        "gemms": [
            {
                "shape": list(shape),
                "cycles": timing["cycles"],
                "seconds": timing["cycles"] / device.clock_hz,
                "utilization": _share(timing["macs"], timing["cycles"] * macs),
            }
            for shape, timing in zip(shapes, timings, strict=True)
        ],
    }


def _quantities(device: hardware.Hardware, unit: str) -> dict[str, int]:
    """The parameters of one unit that the device's model declares, as numbers."""
    model = next(info for info in _core.models() if info.name == device.model)
    return {
        parameter.name: _core.parse_quantity(
            parameter.name, device.parameters[parameter.name], unit
        )
        for parameter in model.parameters
        if parameter.unit == unit
    }


def _on_chip_bytes(device: hardware.Hardware) -> int | None:
    """Of all cores: a model states its buffers, and nothing else, in bytes, for one core."""
    buffers = _quantities(device, "bytes")
    cores = int(device.parameters.get("cores", "1"))
    return sum(buffers.values()) * cores if buffers else None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def show(report: dict[str, Any]) -> Iterable[str]:
    """A table of the report, a column for each preset."""
    presets = report["presets"]
    labels = ["", "model", "clock, MHz", "peak, TFLOPS", "memory, GB/s", "on chip, KiB"]
    labels.append("balance, FLOP/byte")
    for gemm in presets[0]["gemms"]:
        labels += ["", "x".join(map(str, gemm["shape"])), "  time", "  utilisation, %"]
    yield from _layout.columns(labels, [_cells(preset) for preset in presets])
    yield ""
    yield "GEMMs MxNxK of float32: cycles, simulated time, share of the peak."
    yield "-: the model has no such limit."


def _cells(preset: dict[str, Any]) -> list[str]:
    cells = [
        preset["name"],
        preset["model"],
        _scaled(preset["clock_hz"], 1e6),
        _scaled(preset["peak_flops"], 1e12),
        _scaled(preset["memory_bytes_per_s"], 1e9),
        _scaled(preset["on_chip_bytes"], 1024),
        _scaled(preset["balance_flop_per_byte"], 1),
    ]
    for gemm in preset["gemms"]:
        cells += ["", f"{gemm['cycles']:,}", seconds_text(gemm["seconds"])]
        cells.append(f"{100 * gemm['utilization']:.1f}")
    return cells


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.4g}"
