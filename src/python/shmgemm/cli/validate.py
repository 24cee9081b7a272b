"""`shmgemm validate`: the timing models against what they stand for, with the errors in tables."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .._version import __version__
from ..validation import PARTS, Options, part


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `validate` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "validate",
        help="compare the timing models with the tools and measurements they stand for",
        description="; ".join(f"{name}: {summary}" for name, summary in PARTS.items()),
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument(
        "--cases", type=int, default=Options.cases, metavar="N", help="random layers to compare"
    )
    parser.add_argument("--seed", type=int, default=Options.seed, metavar="S", help="which ones")
    parser.add_argument("--json", action="store_true", help="the results as one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the parts; 1 where one does not agree."""
    if unknown := [name for name in args.parts if name not in PARTS]:
        raise ValueError(f"part {unknown[0]!r}: expected some of {', '.join(PARTS)}")
    if args.cases < 1:
        raise ValueError(f"--cases {args.cases}: expected at least 1")
    options = Options(args.cases, args.seed, _show_progress)
    results: dict[str, Any] = {}
    agree = True
    for name in args.parts or PARTS:
        module = part(name)
        results[name] = module.run(options)
        agree &= module.passed(results[name])
        if not args.json:
            print("\n".join(module.table(results[name])), flush=True)
    if args.json:
        print(json.dumps({"version": __version__, **results}, indent=2))
    return 0 if agree else 1


def _show_progress(text: str) -> None:
    print(f"shmgemm validate: {text}", file=sys.stderr, flush=True)
