"""`shmgemm guest`: build, boot, look into and stop the RISC-V machine of the guest path."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..guest._state import State

_STOP_TIMEOUT_S = 5.0
_SERVER_PORT = 9999


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `guest` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "guest",
        help="build, boot, look into and stop the RISC-V machine of the guest path",
        description="RISC-V Linux in QEMU, with the device server, /dev/sst0 and its driver.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_build(actions)
    _add_boot(actions)
    for name, summary, run in (
        ("exec", "run a command in the guest: shmgemm guest exec -- sstctl ping", _exec),
        ("shell", "a shell in the guest", _shell),
        ("console", "print what the guest's kernel and server have written", _console),
        ("stop", "end the guest", _stop),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("--pid", type=int, help="which guest, where several run")
        if name == "exec":
            action.add_argument("words", nargs="+", metavar="CMD", help="command, after --")
        action.set_defaults(func=run)
    status = actions.add_parser("status", help="list the guests that run")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(func=_status)


def _add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant",
        choices=("production", "debug"),
        default="production",
        help="debug: a kernel that watches itself (KASAN, lockdep, kmemleak), slow",
    )


def _add_build(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = actions.add_parser(
        "build",
        help="build what is not there yet; needed once",
        description="Kernel, initramfs and QEMU plug-in, under $XDG_CACHE_HOME/shmgemm. Up to 10"
        " minutes the first time. Every command that needs them builds them by itself.",
    )
    _add_variant(build)
    build.add_argument("--json", action="store_true", help="print the paths as JSON")
    build.set_defaults(func=_build)


def _add_boot(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    boot = actions.add_parser(
        "boot",
        help="start a guest that stays until `shmgemm guest stop`",
        description="With an engine of its own, which ends with it. Or with an engine of yours, at"
        " --region and --link: the two may be started in any order. Without --link there is no"
        " device, and the server computes on its own CPU.",
    )
    boot.add_argument("--hardware", metavar="PRESET|FILE", help="of the guest's own engine")
    boot.add_argument("--no-engine", action="store_true", help="neither engine nor device")
    boot.add_argument("--region", metavar="FILE", help="the region's file, or /proc/PID/fd/N")
    boot.add_argument("--link", metavar="SOCKET", help="Unix socket where the engine listens")
    boot.add_argument("--index", type=int, default=0, help="which device older records mean")
    boot.add_argument("--share", metavar="DIR", help="a folder to see at /mnt/shared in the guest")
    boot.add_argument(
        "--port",
        type=int,
        default=_SERVER_PORT,
        help="of the device server, on 127.0.0.1; 0: a free one (default %(default)s)",
    )
    boot.add_argument("--timeout", type=float, metavar="S", help="seconds to wait for READY")
    _add_variant(boot)
    boot.set_defaults(func=_boot)


def _build(args: argparse.Namespace) -> int:
    from .. import guest

    image = guest.build(args.variant)
    if args.json:
        print(json.dumps({key: str(value) for key, value in asdict(image).items()}, indent=1))
    else:
        for key, value in asdict(image).items():
            print(f"{key:13} {value}")
    return 0


def _boot(args: argparse.Namespace) -> int:
    from .. import guest
    from ..guest import _machine

    link = None if args.link is None else os.path.abspath(args.link)
    hardware = _own_hardware(args)
    debug = args.variant == "debug"
    machine = guest.Guest(
        args.region,
        link,
        args.share,
        args.port,
        args.index,
        image=guest.build(args.variant),
        owned=False,
        memory_mib=2 * _machine.MEMORY_MIB if debug else _machine.MEMORY_MIB,
        hardware=hardware,
    )
    begin = time.monotonic()
    machine.start()
    try:
        machine.wait_ready(args.timeout or (12 if debug else 1) * _machine.READY_TIMEOUT_S)
    except BaseException:
        machine.stop()
        raise
    print(
        f"guest {machine.pid} ready in {time.monotonic() - begin:.1f} s: device server at"
        f" 127.0.0.1:{machine.port}, region {machine.region_path or 'none'}, console"
        f" {machine.console_path}"
    )
    return 0


def _own_hardware(args: argparse.Namespace) -> dict[str, str] | None:
    """Of the engine that this guest brings; None: it brings none."""
    from .. import hardware, settings

    if args.region is None and args.link is None and not args.no_engine:
        return dict(hardware.load(settings.resolve("hardware", args.hardware)).parameters)
    if args.hardware is not None:
        raise ValueError("--hardware is for the guest's own engine: not with --region, --link")
    return None


def _exec(args: argparse.Namespace) -> int:
    from ..guest import _agent, _state

    state = _state.only(args.pid)
    return _agent.stream(state.agent_port, state.token, args.words)


def _shell(args: argparse.Namespace) -> int:
    from ..guest import _agent, _state

    state = _state.only(args.pid)
    return _agent.shell(state.agent_port, state.token)


def _console(args: argparse.Namespace) -> int:
    from ..guest import _state

    sys.stdout.write(_state.console_text(_state.only(args.pid).console))
    return 0


def _stop(args: argparse.Namespace) -> int:
    from ..guest import _state

    state = _state.only(args.pid)
    _end(state)
    _state.forget(Path(state.folder))
    print(f"guest {state.pid} ended")
    return 0


def _end(state: State) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.kill(state.pid, number)
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while state.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        if not state.alive():
            return


def _status(args: argparse.Namespace) -> int:
    from ..guest import _state

    guests = _state.running()
    if args.json:
        known = ("pid", "port", "region", "link", "folder")
        print(json.dumps([{key: asdict(guest)[key] for key in known} for guest in guests]))
        return 0
    for guest in guests:
        print(f"{guest.pid}  127.0.0.1:{guest.port}  region {guest.region}  link {guest.link}")
    if not guests:
        print("no guest runs")
    return 0
