"""`shmgemm serve`: the device server on this host, with an engine of its own or on the CPU alone.

The server is the program that runs in a guest (guest/server), built for this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ShmgemmError

_START_S = 60.0
_END_S = 5.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `serve` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "serve",
        help="serve matrix products over TCP, as the server in a guest does",
        description="The device server of a guest, on this host: docs/protocol.md has what it"
        " speaks. Ctrl-C ends server and engine.",
    )
    parser.add_argument("--port", type=int, default=9999, help="TCP port (9999; 0: any)")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="(127.0.0.1)")
    parser.add_argument("--engine", choices=("embedded", "sst"), help="what simulates")
    parser.add_argument("--hardware", metavar="PRESET|FILE", help="preset or TOML file")
    parser.add_argument("--devices", type=int, metavar="N", help="how many simulated devices")
    parser.add_argument(
        "--region", metavar="FILE", help="the shared region; made where there is none"
    )
    parser.add_argument("--cpu-only", action="store_true", help="no engine: the CPU computes")
    parser.add_argument(
        "--log-level",
        choices=("info", "debug"),
        default="info",
        help="debug: op, shapes and byte counts of each frame",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    _check(args)
    with contextlib.ExitStack() as stack:
        words = [
            str(Path(__file__).parents[1] / "bin" / "shmgemm-server"),
            *("--port", str(args.port), "--bind", args.bind, "--log-level", args.log_level),
            *("--parent", str(os.getpid())),
        ]
        stack.enter_context(_signals())
        if not args.cpu_only:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shmgemm-")))
            link = folder / "link"
            region = Path(args.region) if args.region else folder / "region"
            words_of_engine = _engine_words(args, region, link)
            engine = stack.enter_context(_child(words_of_engine, subprocess.DEVNULL))
            _wait_until_it_serves(engine, link)
            words += ["--link", str(link), "--region", str(region)]
        server = stack.enter_context(_child(words))
        return server.wait()


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: a number from 0 to 65535 expected")
    if args.cpu_only:
        for option in ("engine", "hardware", "devices", "region"):
            if getattr(args, option) is not None:
                raise ValueError(f"--cpu-only and --{option} exclude each other")


def _engine_words(args: argparse.Namespace, region: Path, link: Path) -> list[str]:
    """What starts the engine: it serves `region` at `link`, and ends with this process."""
    from .. import hardware, settings, sst
    from ..engine import default_engine_path

    described = hardware.load(settings.resolve("hardware", args.hardware))
    devices = settings.resolve("devices", args.devices)
    executable = settings.resolve("engine_path")
    if settings.resolve("engine", args.engine) == "sst":
        served = {"host": "file", "region": str(region), "link": str(link), "parent": os.getpid()}
        configuration = link.with_name("configuration.py")
        text = sst.configuration_text(described, devices) + f"host.addParams({served!r})\n"
        configuration.write_text(text)
        program, words = sst.command(executable, str(configuration))
        return [program, *words]
    return [
        executable or default_engine_path(),
        *("--region", str(region), "--link", str(link), "--parent", str(os.getpid())),
        *("--devices", str(devices)),
        *(f"{key}={value}" for key, value in described.parameters.items()),
    ]


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends this as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _child(words: list[str], output: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the block, in a group of its own: Ctrl-C is ours to pass on."""
    child = subprocess.Popen(words, stdout=output, process_group=0)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_until_it_serves(engine: subprocess.Popen[bytes], link: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not _accepts(link):
        if engine.poll() is not None:
            raise ShmgemmError(f"the engine ended with status {engine.returncode} as it started")
        if time.monotonic() > deadline:
            raise ShmgemmError(f"the engine did not start within {_START_S:g} s")
        time.sleep(0.02)


def _accepts(link: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(link))
        except OSError:
            return False
    return True
