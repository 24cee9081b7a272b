"""`shmgemm bench`: measure against floors of the same run, and against the goals."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from ..bench import compare, harness, suite


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "bench", help="measure latency, throughput and a whole model against their floors"
    )
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, summary in suite.BENCHES.items():
        one = what.add_parser(name, help=summary, description=summary)
        _add_run_options(one)
        one.set_defaults(func=run)
    every = what.add_parser("all", help="every bench that is there for the engine")
    _add_run_options(every)
    every.set_defaults(func=run_all)
    _add_compare(what)
    _add_plot(what)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, no text")
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal was missed")
    parser.add_argument(
        "--quick", action="store_true", help="few samples: to try it, not to judge by"
    )
    parser.add_argument(
        "--engine",
        choices=("embedded", "sst"),
        default="embedded",
        help="sst: latency and gemm through SST beside the embedded engine, async and model through"
        " SST beside their floors; with all: latency, async and model",
    )
    parser.add_argument(
        "--guest",
        action="store_true",
        help="with latency: through a guest, hop by hop, beside the direct path and inline ops;"
        " with all: that too",
    )


def _add_compare(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("compare", help="two reports of --json, row by row")
    parser.add_argument("a", metavar="A.json", help="before")
    parser.add_argument("b", metavar="B.json", help="after")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no text")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit 1 where a row got worse by more than 10 %%",
    )
    parser.set_defaults(func=run_compare)


def _add_plot(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("plot", help="a picture of the time of products by their size")
    parser.add_argument("out", metavar="OUT.png", help="the picture; a csv of that name beside it")
    parser.add_argument("--guest", action="store_true", help="with a line for a guest")
    parser.add_argument("--quick", action="store_true", help="three sizes, few samples")
    parser.set_defaults(func=run_plot)


def run(args: argparse.Namespace) -> int:
    rows = suite.bench(args.what, args.engine, args.guest)(args.quick)
    print(harness.to_json(rows) if args.json else harness.table(rows))
    return _exit_code(rows, args.check)


def run_all(args: argparse.Namespace) -> int:
    facts = suite.facts(args.engine)
    found: dict[str, list[harness.Row]] = {}
    left_out: dict[str, str] = {}
    for name, rows in suite.run_all(suite.benches(args.engine, args.guest), args.quick, left_out):
        found[name] = rows
        if not args.json:
            print(f"== {name}\n{harness.table(rows)}\n", flush=True)
    if args.json:
        print(suite.report(facts, found, left_out))
    return _exit_code([row for rows in found.values() for row in rows], args.check)


def _exit_code(rows: Sequence[harness.Row], check: bool) -> int:
    missed = [row for row in rows if row.met is False]
    for row in missed:
        print(f"missed: {row.name}: {row.goal}", file=sys.stderr)
    return 1 if check and missed else 0


def run_compare(args: argparse.Namespace) -> int:
    found = compare.compare(compare.read(args.a), compare.read(args.b))
    print(compare.to_json(found) if args.json else "\n".join(compare.table(found)))
    worse = compare.worse(found)
    for change in worse:
        print(f"worse: {change.name}: {change.a:.4g} to {change.b:.4g}", file=sys.stderr)
    return 1 if args.check and worse else 0


def run_plot(args: argparse.Namespace) -> int:
    from ..bench import sizes

    for path in sizes.draw(args.out, args.guest, args.quick):
        print(f"wrote {path}")
    return 0
