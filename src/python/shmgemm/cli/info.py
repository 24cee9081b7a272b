"""`shmgemm info`: what there is to choose from, and what is chosen now.

Presets, models and their parameters with units, defaults and legal ranges, limits, element types,
and every setting with its value and origin. Tables fit 80 columns; `--json` has the same facts.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from .. import _core, _dtypes, abi, hardware, plugins, settings
from .._version import __version__
from . import _compare, _layout
from ._options import add_plugin_option

_EXAMPLE = (1024, 1024, 1024)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `info` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "info",
        help="presets, models, parameters, limits and settings",
        description="What there is to choose from, and what is chosen now.",
    )
    add_plugin_option(parser)
    parser.add_argument("--json", action="store_true", help="the same facts as JSON")
    parser.set_defaults(func=run, kind=None)
    kinds = parser.add_subparsers(dest="kind", metavar="preset | model | compare")
    for kind in ("preset", "model"):
        one = kinds.add_parser(kind, help=f"show one {kind}")
        one.add_argument("name", nargs="?", help="its name; for a preset also a TOML file")
    side_by_side = kinds.add_parser("compare", help="presets side by side, and GEMMs on each")
    side_by_side.add_argument(
        "names", nargs="+", metavar="PRESET", help="a preset's name or a TOML file"
    )
    side_by_side.add_argument(
        "--gemm",
        nargs="+",
        metavar="MxNxK",
        default=_compare.DEFAULT_GEMMS,
        help=f"default: {' '.join(_compare.DEFAULT_GEMMS)}",
    )
    for one in kinds.choices.values():
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON")
        add_plugin_option(one, default=argparse.SUPPRESS)


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
        report = _report(args)
    except (ValueError, OSError, OverflowError) as error:
        print(f"shmgemm info: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(_SHOW[args.kind](report)))
    return 1 if bad_plugin or any(row["error"] for row in report.get("settings", ())) else 0


def _report(args: argparse.Namespace) -> dict[str, Any]:
    if args.kind is None:
        return overview()
    if args.kind == "compare":
        return _compare.compare(args.names, args.gemm)
    if args.name is None:
        names = hardware.presets() if args.kind == "preset" else _model_names()
        raise ValueError(f"{args.kind}: which one? There are: {', '.join(names)}")
    return preset(args.name) if args.kind == "preset" else model(args.name)


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
        "example": {
            "shape": list(_EXAMPLE),
            "cycles": timing["cycles"],
            "mapping": _mapping(device) if device.model == "systolic" else None,
        },
    }


def _mapping(device: hardware.Hardware) -> dict[str, Any]:
    """How the mapper cuts the example."""
    found = _core.map_gemm(device.parameters, *_EXAMPLE)
    return {**found, "tile": list(found["tile"]), "parts": list(found["parts"])}


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
        "processes": abi.MAX_ENGINES,
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
    yield from _layout.section(
        f"Presets (default {hardware.DEFAULT_PRESET}; more: shmgemm info preset NAME)"
    )
    rows = [(row["name"], row["digest"], row["description"]) for row in report["presets"]]
    yield from _layout.table(("name", "digest", "what"), rows)
    yield from _layout.section("Models (more: shmgemm info model NAME)")
    yield from _layout.table(
        ("name", "what"), [(row["name"], row["summary"]) for row in report["models"]]
    )
    yield from _files({row["file"] for row in report["models"] if row["file"]})
    yield from _layout.section("Parameters of every device")
    yield from _parameter_table(report["device_parameters"])
    yield from _layout.section("Element types")
    dtypes = [(row["input"], ", ".join(row["outputs"])) for row in report["dtypes"]]
    yield from _layout.table(("A and B", "C"), dtypes)
    yield from _layout.section("Limits")
    yield from _layout.table(
        ("name", "value"), [(k, _plain(v)) for k, v in report["limits"].items()]
    )
    yield from _layout.section(f"Settings (file: {report['settings_file'] or 'none'})")
    current = [
        (row["name"], "INVALID" if row["error"] else _plain(row["value"]), row["origin"],
         row["error"] or f"{row['meaning']} ({row['legal']})")
        for row in report["settings"]
    ]  # fmt: skip
    yield from _layout.table(("name", "value", "from", "meaning"), current)


def _show_preset(report: dict[str, Any]) -> Iterable[str]:
    yield from textwrap.wrap(f"{report['name']}: {report['description']}", _layout.WIDTH)
    yield from _layout.section("Parameters")
    origins = dict.fromkeys(report["calibrated"], "calibrated")
    origins |= dict.fromkeys(report["assumed"], "assumed")
    parameters = [(key, value, origins.get(key, "")) for key, value in report["parameters"].items()]
    yield from _layout.table(("name", "value", "not from the source"), parameters)
    yield from _layout.section("What follows")
    m, n, k = report["example"]["shape"]
    cycles, mapping = report["example"]["cycles"], report["example"]["mapping"]
    facts = [
        ("peak", f"{report['peak_macs_per_cycle']} MAC/cycle"),
        ("peak", f"{report['peak_flops'] / 1e12:.4g} TFLOPS (2 per MAC)"),
        ("example", f"GEMM {m}x{n}x{k}: {cycles} cycles, {cycles / report['clock_hz']:.4g} s"),
        ("digest", report["digest"]),
    ]
    if mapping is not None:
        tile = "x".join(map(str, mapping["tile"]))
        facts.insert(3, ("mapping", f"tiles {tile}, {mapping['steps']} steps"))
    yield from _layout.table(("fact", "value"), facts)
    for title, text in (("Source", report["source"]), ("Note", report["note"])):
        if text:
            yield from _layout.section(title)
            yield from textwrap.wrap(
                text, _layout.WIDTH - 2, initial_indent="  ", subsequent_indent="  "
            )
    yield from _layout.section("File")
    yield f"  {report['path']}"


def _show_model(report: dict[str, Any]) -> Iterable[str]:
    yield from textwrap.wrap(f"{report['name']}: {report['summary']}", _layout.WIDTH)
    yield from _layout.section("Parameters (besides those of every device)")
    yield from _parameter_table(report["parameters"])
    yield from _files({report["file"]} - {None})


def _files(files: Iterable[str]) -> Iterable[str]:
    """Paths are never wrapped."""
    for file in sorted(files):
        names = [info.name for info in _core.models() if info.file == file]
        yield from _layout.section(f"Plug-in of {', '.join(names)}")
        yield f"  {file}"


def _parameter_table(parameters: list[dict[str, Any]]) -> Iterable[str]:
    rows = [
        (row["name"], row["unit"] or "-", row["default"], row["legal"], row["meaning"])
        for row in parameters
    ]
    return _layout.table(("name", "unit", "default", "legal", "meaning"), rows)


def _plain(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20}MiB"
    return str(value).lower() if isinstance(value, bool) else str(value)


_SHOW: dict[str | None, Callable[[dict[str, Any]], Iterable[str]]] = {
    None: _show_overview,
    "preset": _show_preset,
    "model": _show_model,
    "compare": _compare.show,
}
