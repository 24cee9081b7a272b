"""`shmgemm bench`: measure against floors of the same run, and against the goals."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from ..bench import harness

_BENCHES = {
    "latency": "commands and small products; idle, cold start, loss",
    "gemm": "products beside bare OpenBLAS and beside sockets; what gets copied",
    "staging": "what is copied into the region and back, beside memcpy",
    "model": "a real model beside plain torch",
    "timing": "what the timing models cost; simulated cycles a second",
}


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    benches = "; ".join(f"{name}: {what}" for name, what in _BENCHES.items())
    parser = subparsers.add_parser(
        "bench",
        help="measure latency, throughput and a whole model against their floors",
        description=benches,
    )
    parser.add_argument("what", choices=tuple(_BENCHES))
    parser.add_argument("--json", action="store_true", help="print one JSON object, no text")
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal was missed")
    parser.add_argument(
        "--quick", action="store_true", help="few samples: to try it, not to judge by"
    )
    parser.add_argument(
        "--engine",
        choices=("embedded", "sst"),
        default="embedded",
        help="sst, with latency and gemm: through SST beside the embedded engine",
    )
    parser.add_argument(
        "--guest",
        action="store_true",
        help="with latency: through a guest, hop by hop, beside the direct path and inline ops",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    rows = _bench(args.what, args.engine, args.guest)(args.quick)
    print(harness.to_json(rows) if args.json else harness.table(rows))
    missed = [row for row in rows if row.met is False]
    for row in missed:
        print(f"missed: {row.name}: {row.goal}", file=sys.stderr)
    return 1 if args.check and missed else 0


def _bench(what: str, engine: str, guest: bool) -> Callable[[bool], list[harness.Row]]:
    if guest:
        if what != "latency":
            raise ValueError(f"bench {what} --guest: there is none, only latency")
        from ..bench import through_guest

        return partial(through_guest.latency, engine)
    if engine == "embedded":
        run: Callable[[bool], list[harness.Row]] = import_module(f"..bench.{what}", __package__).run
        return run
    from ..bench import through_sst

    found = {"latency": through_sst.latency, "gemm": through_sst.gemm}
    if what not in found:
        raise ValueError(f"bench {what} --engine sst: there is none, only {' and '.join(found)}")
    return found[what]
