"""`shmgemm plugin`: what a compiler must be told to build a timing model of one's own."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `plugin` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "plugin",
        help="compiler flags for a timing model of your own",
        description="g++ -shared -fPIC $(shmgemm plugin --cflags) my_model.cpp -o my_model.so",
    )
    parser.add_argument(
        "--cflags", action="store_true", required=True, help="print the compiler flags"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    from .. import plugins

    print(plugins.cflags())
    return 0
