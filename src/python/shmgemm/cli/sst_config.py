"""`shmgemm sst-config`: what SST must be told to find and use the element."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sst-config` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "sst-config",
        help="print what SST must be told to use the device as an element",
        description="Without an option: a configuration to paste into an SST system of your own."
        " SST_LIB_PATH=$(shmgemm sst-config --lib-path) sst-info shmgemm documents the element.",
    )
    parser.add_argument(
        "--lib-path", action="store_true", help="print the folder of the element library alone"
    )
    parser.add_argument("--hardware", metavar="PRESET|FILE", help="preset or TOML file")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="how many devices")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    from .. import hardware, settings, sst

    if args.lib_path:
        print(sst.library_folder())
        return 0
    devices = settings.resolve("devices", args.devices)
    print(
        sst.configuration_text(hardware.load(settings.resolve("hardware", args.hardware)), devices)
    )
    return 0
