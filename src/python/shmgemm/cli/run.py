"""`shmgemm run`: a real model, or the user's own script, with its linear layers on the device."""

from __future__ import annotations

import argparse
from typing import Any

from ._options import add_session_options

_MODELS = ("minilm",)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_session_options(parser)
    parser.add_argument("--out", metavar="DIR", help="where files go (default ./out/NAME-PRESET)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no text")
    parser.add_argument(
        "--sentence",
        action="append",
        metavar="TEXT",
        help="minilm: a sentence to encode, again for each (default: five examples)",
    )


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "run",
        help="run a model, or your own script, with its linear layers on the simulated device",
        usage="shmgemm run [options] minilm | SCRIPT.py [script arguments ...]",
        description="minilm is a sentence encoder from PyPI; with several --devices its layers take"
        " turns on them, pipelined. A script runs unmodified; options for"
        " shmgemm stand before its name, what follows is the script's.",
    )
    _add_options(parser)
    parser.add_argument("target", help="minilm, or the path of a Python script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's arguments")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    if args.target in _MODELS:
        late = argparse.ArgumentParser(prog=f"shmgemm run {args.target}")
        _add_options(late)
        late.parse_args(args.arguments, namespace=args)
        from . import _minilm

        return _minilm.run(args)
    if args.sentence:
        raise ValueError("--sentence is for `shmgemm run minilm`; a script takes its own arguments")
    from . import _script

    return _script.run(args)
