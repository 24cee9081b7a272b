"""The `shmgemm` command. A subcommand's module is imported only when it is the one asked for.

Exit codes: 0 done, 1 it failed, 2 it was asked for something that cannot be, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .._version import __version__
from ..errors import ShmgemmError

COMMANDS = {
    "run": "run a model, or your own script, with its linear layers on the simulated device",
    "bench": "measure latency, throughput and a whole model against their floors",
    "sim": "cycles and accesses of a GEMM list, from SCALE-Sim's files to SCALE-Sim's reports",
    "validate": "compare the timing models with the tools and measurements they stand for",
    "info": "list presets, timing models and their parameters",
    "guest": "build, boot, look into and stop the RISC-V machine of the guest path",
    "plugin": "print compiler flags for a timing model of your own",
    "sst-config": "print what SST must be told to use the device as an element",
    "doctor": "say what this machine has, what it misses and what to do about it",
}


def parser(command: str | None) -> argparse.ArgumentParser:
    """The parser, in full only for `command`; the others are there with their help line alone."""
    root = argparse.ArgumentParser(
        prog="shmgemm",
        description="Matrix products on a simulated accelerator: real numbers and cycles.",
    )
    root.add_argument("--version", action="version", version=f"shmgemm {__version__}")
    subparsers = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == command:
            import_module(f".{name.replace('-', '_')}", __name__).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        args = parser(command).parse_args(words)
        return int(args.func(args))
    except KeyboardInterrupt:
        print("shmgemm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ShmgemmError, ValueError, OSError, ImportError) as error:
        if os.environ.get("SHMGEMM_LOG") == "debug":
            raise
        print(f"shmgemm: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
