"""`shmgemm sim`: SCALE-Sim's files in, its reports out, timing only.

The three reports have SCALE-Sim 3.0.0's names, columns and, where nothing stalls, its values, in
milliseconds instead of minutes. `--model` runs the same files on another timing model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ._options import add_plugin_option

if TYPE_CHECKING:
    from ..hardware import Hardware
    from ..scalesim.reports import Row


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sim` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "sim",
        help="SCALE-Sim's files in, SCALE-Sim's reports out",
        description="Cycles, utilisation and memory accesses of a list of GEMMs, without values.",
    )
    parser.add_argument("-c", required=True, metavar="CFG", help="SCALE-Sim's architecture file")
    parser.add_argument(
        "-t", required=True, metavar="CSV", help="GEMMs: a header line, then 'name, M, N, K,'"
    )
    parser.add_argument("-p", required=True, metavar="DIR", help="reports go to DIR/RUN_NAME")
    parser.add_argument("-l", metavar="CSV", help="layout file: checked, its figures are not used")
    parser.add_argument(
        "--model", metavar="NAME", help="timing model (default: the cfg's dataflow)"
    )
    add_plugin_option(parser)
    parser.add_argument("--json", action="store_true", help="the reports as one JSON object too")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the reports and print a table, or all values as JSON."""
    from .. import plugins
    from ..scalesim import config, reports, topology

    plugins.load(args.plugin)
    architecture = config.read(args.c)
    layers = topology.read(args.t)
    if args.l is not None:
        topology.check_layout(args.l)
    hardware = reports.machine(architecture, args.model)
    rows = reports.simulate(architecture, layers, hardware)
    files = reports.write(Path(args.p) / architecture.run_name, rows)
    if stalling := [row for row in rows if not row.stall_free]:
        print(
            f"shmgemm sim: {len(stalling)} of {len(rows)} layers do not fit the SRAMs, first"
            f" {stalling[0].layer.name!r}: with InterfaceBandwidth USER SCALE-Sim may count stalls"
            " for them, which is not modelled; their values are those of CALC",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps(_as_json(architecture.run_name, hardware, rows, files), indent=2))
    else:
        print("\n".join(_table(hardware, rows)))
        for path in files:
            print(f"wrote {path}")
    return 0


def _as_json(
    run_name: str, hardware: Hardware, rows: Sequence[Row], files: Sequence[Path]
) -> dict[str, Any]:
    return {
        "version": __version__,
        "run_name": run_name,
        "preset": hardware.name,
        "preset_hash": hardware.digest,
        "parameters": hardware.parameters,
        "total_cycles": _total(rows),
        "layers": [
            {**asdict(row.layer), "stall_free": row.stall_free, "values": row.values}
            for row in rows
        ],
        "files": {path.name: str(path) for path in files},
    }


def _total(rows: Sequence[Row]) -> int:
    return sum(int(row.values["Total Cycles"] or 0) for row in rows)


def _table(hardware: Hardware, rows: Sequence[Row]) -> Iterable[str]:
    parameters = hardware.parameters
    array = f"{parameters['rows']}x{parameters['cols']} array" if "rows" in parameters else ""
    yield f"shmgemm {__version__}: {hardware.model} {array}".rstrip()
    yield f"{'layer':<28} {'M':>8} {'N':>8} {'K':>8} {'cycles':>15} {'util %':>7}"
    for row in rows:
        layer, values = row.layer, row.values
        name = layer.name if len(layer.name) <= 28 else f"…{layer.name[-27:]}"
        yield (
            f"{name:<28} {layer.m:>8} {layer.n:>8} {layer.k:>8} {values['Total Cycles']:>15}"
            f" {values['Overall Util %']:>7.2f}"
        )
    yield f"total: {_total(rows)} cycles in {len(rows)} layers"
