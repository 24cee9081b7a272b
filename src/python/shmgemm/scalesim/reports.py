"""SCALE-Sim 3.0.0's three reports, from a timing model and closed forms.

The cycles, utilisations and SRAM access counts come from the model; for SCALE-Sim's own models the
cycles of first and last accesses and the DRAM columns come from `accesses` and `buffers`.
`simulator.py` and `single_layer_sim.calc_report_data` define the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _core, _files
from ..hardware import Hardware, load
from . import buffers
from .accesses import Stream, streams
from .buffers import Traffic
from .config import Architecture
from .topology import Layer

Value = int | float | None

COLUMNS: dict[str, tuple[str, ...]] = {
    "COMPUTE_REPORT.csv": (
        "LayerID",
        "Total Cycles (incl. prefetch)",
        "Total Cycles",
        "Stall Cycles",
        "Overall Util %",
        "Mapping Efficiency %",
        "Compute Util %",
    ),
    "BANDWIDTH_REPORT.csv": (
        "LayerID",
        "Avg IFMAP SRAM BW",
        "Avg FILTER SRAM BW",
        "Avg OFMAP SRAM BW",
        "Avg IFMAP DRAM BW",
        "Avg FILTER DRAM BW",
        "Avg OFMAP DRAM BW",
    ),
    "DETAILED_ACCESS_REPORT.csv": (
        "LayerID",
        *(
            f"{memory} {operand} {what}"
            for memory in ("SRAM", "DRAM")
            for operand, accesses in (("IFMAP", "Reads"), ("Filter", "Reads"), ("OFMAP", "Writes"))
            for what in ("Start Cycle", "Stop Cycle", accesses)
        ),
    ),
}
_CLOCK, _CLOCK_HZ = "1GHz", 10**9
_SCRATCHPAD, _MEMORY = 0, 1
_A, _B, _C = 0, 1, 2


@dataclass(frozen=True)
class Row:
    """One layer's values by column name, and whether they are those of a run without stalls.

    `stalls` is False where the cfg asks for USER bandwidth and an operand does not fit: SCALE-Sim's
    stall model would decide then, and the values are those of a CALC run.
    """

    layer: Layer
    values: dict[str, Value]
    stall_free: bool


def machine(architecture: Architecture, model: str | None = None) -> Hardware:
    """The cfg's hardware for a timing model; default the `scalesim_*` one of its dataflow.

    A model gets those of the cfg's figures that it declares parameters for. Raises ValueError where
    the model does not exist or does not take a figure.
    """
    name = model or f"scalesim_{architecture.dataflow}"
    infos = {info.name: info for info in _core.models()}
    if name not in infos:
        raise ValueError(f"model {name!r}: expected one of {', '.join(sorted(infos))}")
    declared = {parameter.name: parameter for parameter in infos[name].parameters}
    given = _parameters(architecture, declared.get("memory_bw"))
    taken = {key: value for key, value in given.items() if key in declared}
    if "memory_bw" in declared:
        taken["clock"] = _CLOCK
    try:
        return load({"model": name, **taken})
    except ValueError as error:
        raise ValueError(f"{architecture.path}: for model {name}: {error}") from None


def _parameters(
    architecture: Architecture, bandwidth: _core.ParameterInfo | None
) -> dict[str, str | int]:
    """The cfg in the names and units of models: sizes in bytes, bandwidth in bytes per second.

    A cfg has no clock, so words per cycle are at `_CLOCK`. CALC is the bandwidth with which nothing
    stalls: the most that the model takes.
    """
    bytes_per_second = architecture.ofmap_bandwidth * _CLOCK_HZ
    if not architecture.user_bandwidth:
        bytes_per_second = bandwidth.maximum if bandwidth else 0
    return {
        "rows": architecture.rows,
        "cols": architecture.cols,
        "dataflow": architecture.dataflow,
        "scratchpad_a": f"{1024 * architecture.ifmap_kb}B",
        "scratchpad_b": f"{1024 * architecture.filter_kb}B",
        "accumulator": f"{1024 * architecture.ofmap_kb}B",
        "memory_bw": f"{bytes_per_second}B/s",
    }


def simulate(architecture: Architecture, layers: Sequence[Layer], hardware: Hardware) -> list[Row]:
    """The reports' rows: cycles, words, words per cycle and percent, as SCALE-Sim has them.

    `hardware` is `machine(architecture)`. Raises ValueError for a layer whose figures exceed 2^63 -
    1.
    """
    row = _scalesim_row if hardware.model.startswith("scalesim_") else _model_row
    return [row(architecture, layer, _timing(hardware.parameters, layer)) for layer in layers]


def write(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Write the three files as SCALE-Sim formats them; a value that a model has not is empty."""
    with _files.named("cannot make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, columns in COLUMNS.items():
        lines = [", ".join(columns)]
        for number, row in enumerate(rows):
            values = (row.values[column] for column in columns[1:])
            lines.append(", ".join([str(number), *("" if v is None else str(v) for v in values)]))
        paths.append(folder / name)
        with _files.named("cannot write", paths[-1]):
            paths[-1].write_text("".join(f"{line},\n" for line in lines), encoding="utf-8")
    return paths


def _timing(parameters: dict[str, str], layer: Layer) -> dict[str, Any]:
    """The model's report, in words: SCALE-Sim's are one byte long."""
    try:
        return _core.simulate_gemm(
            parameters, layer.m, layer.n, layer.k, input_bytes=1, output_bytes=1
        )
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{layer.place}: {error}") from None


def _compute_values(timing: dict[str, Any]) -> dict[str, Value]:
    peak = timing["cycles"] * timing["peak_macs_per_cycle"]
    return {
        "Total Cycles": timing["cycles"],
        "Stall Cycles": timing["memory_stall_cycles"],
        "Overall Util %": _ratio(100 * timing["macs"], peak),
        "Mapping Efficiency %": 100 * timing["mapping_efficiency"],
        "Compute Util %": 100 * timing["compute_utilization"],
    }


def _words(timing: dict[str, Any], level: int) -> dict[str, int]:
    """Words by operand: A and B read, C written."""
    reads, writes = timing["read_bytes"][level], timing["write_bytes"][level]
    return {"IFMAP": reads[_A], "Filter": reads[_B], "OFMAP": writes[_C]}


def _ratio(a: float, b: float) -> float:
    """0 where SCALE-Sim divides by zero: one multiplication on one element ends in cycle 0."""
    return a / b if b else 0.0


def _scalesim_row(architecture: Architecture, layer: Layer, timing: dict[str, Any]) -> Row:
    accesses = streams(architecture, layer)
    by_operand = {"IFMAP": accesses.ifmap, "Filter": accesses.filter, "OFMAP": accesses.ofmap}
    traffic, stall_free = _traffic(architecture, by_operand, timing["cycles"])
    values = _compute_values(timing)
    begin = min(traffic["IFMAP"].start, traffic["Filter"].start)
    values["Total Cycles (incl. prefetch)"] = traffic["OFMAP"].stop - begin
    for operand, words in _words(timing, _SCRATCHPAD).items():
        stream, dram = by_operand[operand], traffic[operand]
        accessed = "Writes" if operand == "OFMAP" else "Reads"
        # A read is served a cycle after it is asked for (hit_latency), a write at once.
        latency = 0 if operand == "OFMAP" else 1
        values |= {
            f"SRAM {operand} Start Cycle": float(stream.first_cycle + latency),
            f"SRAM {operand} Stop Cycle": float(stream.last_cycle + latency),
            f"SRAM {operand} {accessed}": words,
            f"DRAM {operand} Start Cycle": float(dram.start),
            f"DRAM {operand} Stop Cycle": float(dram.stop),
            f"DRAM {operand} {accessed}": dram.words,
            _bandwidth(operand, "SRAM"): _ratio(words, timing["cycles"]),
            _bandwidth(operand, "DRAM"): dram.words / (dram.stop - dram.start + 1),
        }
    return Row(layer, values, stall_free)


def _bandwidth(operand: str, memory: str) -> str:
    return f"Avg {operand.upper()} {memory} BW"


def _traffic(
    architecture: Architecture, accesses: dict[str, Stream], cycles: int
) -> tuple[dict[str, Traffic], bool]:
    """DRAM traffic by operand, and whether nothing stalls."""
    sram_words = {
        "IFMAP": 1024 * architecture.ifmap_kb,
        "Filter": 1024 * architecture.filter_kb,
        "OFMAP": 1024 * architecture.ofmap_kb,
    }
    cols = architecture.cols
    if architecture.user_bandwidth:
        bandwidths = {
            "IFMAP": architecture.ifmap_bandwidth,
            "Filter": architecture.filter_bandwidth,
        }
        found = {
            operand: buffers.user_reads(accesses[operand], sram_words[operand], bandwidth)
            for operand, bandwidth in bandwidths.items()
        }
        found["OFMAP"] = buffers.writes(
            accesses["OFMAP"], sram_words["OFMAP"], architecture.ofmap_bandwidth, cols, cycles
        )
        traffic = {operand: value for operand, value in found.items() if value is not None}
        if len(traffic) == len(found):
            return traffic, True
    traffic = {
        operand: buffers.calc_reads(accesses[operand], sram_words[operand])
        for operand in ("IFMAP", "Filter")
    }
    written = buffers.writes(accesses["OFMAP"], sram_words["OFMAP"], cols, cols, cycles)
    assert written is not None  # a line a cycle is as fast as the array
    return {**traffic, "OFMAP": written}, not architecture.user_bandwidth


def _model_row(architecture: Architecture, layer: Layer, timing: dict[str, Any]) -> Row:
    """A model of ours: it has cycles and traffic, but no cycle of a single access."""
    values: dict[str, Value] = dict.fromkeys(_all_columns())
    values |= _compute_values(timing)
    values["Total Cycles (incl. prefetch)"] = timing["cycles"]
    for memory, level in (("SRAM", _SCRATCHPAD), ("DRAM", _MEMORY)):
        for operand, words in _words(timing, level).items():
            accessed = "Writes" if operand == "OFMAP" else "Reads"
            values[f"{memory} {operand} {accessed}"] = words
            values[_bandwidth(operand, memory)] = _ratio(words, timing["cycles"])
    return Row(layer, values, True)


def _all_columns() -> Iterable[str]:
    return (column for columns in COLUMNS.values() for column in columns[1:])
