"""`shmgemm info`: what there is to choose from, and what is chosen now.

Presets, models and their parameters with units, defaults and legal ranges, limits, element types,
and every setting with its value and origin. Tables fit 80 columns; `--json` has the same facts.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from .. import _core, _dtypes, abi, hardware, plugins, settings
from .._version import __version__
from ._options import add_plugin_option

WIDTH = 80
_EXAMPLE = (1024, 1024, 1024)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `info` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "info",
        help="presets, models, parameters, limits and settings",
        description="What there is to choose from, and what is chosen now.",
    )
    parser.add_argument("kind", nargs="?", choices=("preset", "model"), help="show one of these")
    parser.add_argument("name", nargs="?", help="its name; for a preset also a TOML file")
    add_plugin_option(parser)
    parser.add_argument("--json", action="store_true", help="the same facts as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print what was asked for; 2 for a name that does not exist, 1 where a setting is bad."""
    bad_plugin = False
    try:
        try:
            plugins.load(args.plugin)
        except (ValueError, OSError) as error:
            if args.kind is not None:
                raise
            bad_plugin = True
            print(f"shmgemm info: {error}", file=sys.stderr)
        if args.kind is None:
            report = overview()
        elif args.name is None:
            names = hardware.presets() if args.kind == "preset" else _model_names()
            raise ValueError(f"{args.kind}: which one? There are: {', '.join(names)}")
        else:
            report = preset(args.name) if args.kind == "preset" else model(args.name)
    except (ValueError, OSError) as error:
        print(f"shmgemm info: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        show = {None: _show_overview, "preset": _show_preset, "model": _show_model}[args.kind]
        print("\n".join(show(report)))
    return 1 if bad_plugin or any(row["error"] for row in report.get("settings", ())) else 0


def overview() -> dict[str, Any]:
    """All there is, by name."""
    return {
        "version": __version__,
        "abi": list(_core.ABI_VERSION),
        "presets": [_preset_row(name) for name in hardware.presets()],
        "models": [model(name) for name in _model_names()],
        "device_parameters": [_parameter(info) for info in _core.device_parameters()],
        "dtypes": [_dtype(code) for code in sorted(_dtypes.INPUTS)],
        "limits": _limits(),
        "settings": [_setting(name) for name in settings.SETTINGS],
        "settings_file": _settings_file(),
    }


def preset(name: str) -> dict[str, Any]:
    """One preset, with what its hardware could do at most and what one GEMM takes."""
    device = hardware.load(name)
    timing = _core.simulate_gemm(device.parameters, *_EXAMPLE)
    return {
        "version": __version__,
        **asdict(device),
        "peak_macs_per_cycle": timing["peak_macs_per_cycle"],
        "peak_flops": 2 * timing["peak_macs_per_cycle"] * device.clock_hz,
        "example": {"shape": list(_EXAMPLE), "cycles": timing["cycles"]},
    }


def model(name: str) -> dict[str, Any]:
    """One timing model and its parameters."""
    for info in _core.models():
        if info.name == name:
            return {
                "name": info.name,
                "summary": info.summary,
                "file": info.file or None,
                "parameters": [_parameter(parameter) for parameter in info.parameters],
            }
    raise ValueError(f"model {name!r}: there is none; there are: {', '.join(_model_names())}")


def _model_names() -> list[str]:
    return [info.name for info in _core.models()]


def _preset_row(name: str) -> dict[str, Any]:
    device = hardware.load(name)
    return {
        "name": name,
        "model": device.model,
        "digest": device.digest,
        "description": device.description,
    }


def _parameter(info: _core.ParameterInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "unit": info.unit,
        "default": info.default,
        "legal": info.legal,
        "meaning": info.meaning,
    }


def _dtype(code: int) -> dict[str, Any]:
    outputs = [
        name for other, name in _dtypes.NAMES.items() if _dtypes.output_code(code, other) == other
    ]
    return {"input": _dtypes.NAMES[code], "outputs": outputs}


def _limits() -> dict[str, int]:
    return {
        "min_region_bytes": abi.MIN_REGION_BYTES,
        "queue_pairs": abi.MAX_QUEUE_PAIRS,
        "commands_in_flight": abi.RING_SLOTS,
        "devices": 255,
        "max_dimension": 2**31 - 1,
    }


def _setting(name: str) -> dict[str, Any]:
    known = settings.SETTINGS[name]
    row: dict[str, Any] = {
        "name": name,
        "value": None,
        "origin": known.variable,
        "error": None,
        "meaning": known.meaning,
        "legal": known.legal,
        "variable": known.variable,
    }
    try:
        found = settings.resolve_with_origin(name)
        row.update(value=found.value, origin=found.origin)
    except (ValueError, OSError) as error:
        row["error"] = str(error)
    return row


def _settings_file() -> str | None:
    try:
        path = settings.config_path()
    except OSError:
        return None
    return None if path is None else str(path)


def _show_overview(report: dict[str, Any]) -> Iterable[str]:
    major, minor = report["abi"]
    yield f"shmgemm {report['version']}, ABI {major}.{minor}"
    yield from _section(
        f"Presets (default {hardware.DEFAULT_PRESET}; more: shmgemm info preset NAME)"
    )
    rows = [(row["name"], row["digest"], row["description"]) for row in report["presets"]]
    yield from _table(("name", "digest", "what"), rows)
    yield from _section("Models (more: shmgemm info model NAME)")
    yield from _table(("name", "what"), [(row["name"], row["summary"]) for row in report["models"]])
    yield from _files({row["file"] for row in report["models"] if row["file"]})
    yield from _section("Parameters of every device")
    yield from _parameter_table(report["device_parameters"])
    yield from _section("Element types")
    dtypes = [(row["input"], ", ".join(row["outputs"])) for row in report["dtypes"]]
    yield from _table(("A and B", "C"), dtypes)
    yield from _section("Limits")
    yield from _table(("name", "value"), [(k, _plain(v)) for k, v in report["limits"].items()])
    yield from _section(f"Settings (file: {report['settings_file'] or 'none'})")
    current = [
        (row["name"], "INVALID" if row["error"] else _plain(row["value"]), row["origin"],
         row["error"] or f"{row['meaning']} ({row['legal']})")
        for row in report["settings"]
    ]  # fmt: skip
    yield from _table(("name", "value", "from", "meaning"), current)


def _show_preset(report: dict[str, Any]) -> Iterable[str]:
    yield from textwrap.wrap(f"{report['name']}: {report['description']}", WIDTH)
    yield from _section("Parameters")
    yield from _table(("name", "value"), list(report["parameters"].items()))
    yield from _section("What follows")
    m, n, k = report["example"]["shape"]
    cycles = report["example"]["cycles"]
    facts = [
        ("peak", f"{report['peak_macs_per_cycle']} MAC/cycle"),
        ("peak", f"{report['peak_flops'] / 1e12:.4g} TFLOPS (2 per MAC)"),
        ("example", f"GEMM {m}x{n}x{k}: {cycles} cycles, {cycles / report['clock_hz']:.4g} s"),
        ("digest", report["digest"]),
    ]
    yield from _table(("fact", "value"), facts)
    for title, text in (("Source", report["source"]), ("Note", report["note"])):
        if text:
            yield from _section(title)
            yield from textwrap.wrap(text, WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    yield from _section("File")
    yield f"  {report['path']}"


def _show_model(report: dict[str, Any]) -> Iterable[str]:
    yield from textwrap.wrap(f"{report['name']}: {report['summary']}", WIDTH)
    yield from _section("Parameters (besides those of every device)")
    yield from _parameter_table(report["parameters"])
    yield from _files({report["file"]} - {None})


def _files(files: Iterable[str]) -> Iterable[str]:
    """Paths are never wrapped."""
    for file in sorted(files):
        names = [info.name for info in _core.models() if info.file == file]
        yield from _section(f"Plug-in of {', '.join(names)}")
        yield f"  {file}"


def _parameter_table(parameters: list[dict[str, Any]]) -> Iterable[str]:
    rows = [
        (row["name"], row["unit"] or "-", row["default"], row["legal"], row["meaning"])
        for row in parameters
    ]
    return _table(("name", "unit", "default", "legal", "meaning"), rows)


def _section(title: str) -> Iterable[str]:
    return ("", *textwrap.wrap(title, WIDTH))


def _plain(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20}MiB"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
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
