"""Options that say which device: the same for every command that opens a session."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..session import Session


def add_session_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("device")
    group.add_argument("--engine", choices=("embedded", "sst"), help="what simulates")
    group.add_argument(
        "--guest", action="store_const", const=True, help="go through a guest's kernel"
    )
    group.add_argument("--hardware", metavar="PRESET|FILE", help="preset or TOML file")
    add_plugin_option(group)
    group.add_argument(
        "--numerics",
        choices=("fast", "bit_accurate"),
        help="any order of additions, or the array's",
    )
    group.add_argument("--devices", type=int, metavar="N", help="how many simulated devices")
    group.add_argument(
        "--processes", type=int, metavar="N", help="how many engine processes serve them"
    )
    group.add_argument(
        "--strict",
        action="store_const",
        const=True,
        help="fail where a product would fall back to the CPU",
    )


def add_plugin_option(parser: argparse._ActionsContainer, default: str | None = None) -> None:
    parser.add_argument(
        "--plugin",
        action="append",
        metavar="FILE",
        default=default,
        help="timing models of your own; repeatable",
    )


def open_session(args: argparse.Namespace) -> Session:
    from ..opening import open

    return open(
        args.engine,
        args.guest,
        args.hardware,
        numerics=args.numerics,
        plugins=args.plugin,
        devices=args.devices,
        processes=args.processes,
        strict=args.strict,
    )


def describe(session: Session, args: argparse.Namespace) -> str:
    """One line: what is being simulated, by what."""
    from .. import settings
    from .._version import __version__

    engine = settings.resolve("engine", args.engine)
    hardware = session.hardware
    guest = " through a guest" if args.guest else ""
    return (
        f"shmgemm {__version__}, {engine} engine{guest}, {hardware.label}"
        f" ({hardware.parameters['model']}, {session.clock_hz / 1e6:g} MHz, {hardware.digest}),"
        f" {session.numerics} numerics"
    )
