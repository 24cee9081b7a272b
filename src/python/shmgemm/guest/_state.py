"""Running guests, as other processes find them: one file each, and a folder for what they write.

They lie in $XDG_RUNTIME_DIR/shmgemm, or where there is none in a folder of this user's in /tmp.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from .._runtime import folder as runtime_folder
from ..errors import ShmgemmError


@dataclass(frozen=True)
class State:
    """A running guest. `start_ticks` tells its process from a later one with the same pid."""

    pid: int
    start_ticks: int
    port: int
    agent_port: int
    token: str
    folder: str
    region: str | None
    link: str | None

    @property
    def console(self) -> Path:
        return Path(self.folder) / "console.log"

    def alive(self) -> bool:
        return start_ticks(self.pid) == self.start_ticks


def console_text(console: Path) -> str:
    """What a guest has written to its console, without a terminal's carriage returns."""
    return console.read_bytes().decode(errors="replace").replace("\r", "")


def new_folder() -> Path:
    folder = runtime_folder() / f"guest-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    return folder


def write(state: State) -> None:
    path = Path(state.folder) / "state.json"
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(asdict(state), indent=1) + "\n")
    partial.rename(path)


def forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def running() -> list[State]:
    """The guests that run, the oldest first. What dead ones have left is removed."""
    found = []
    for folder in runtime_folder().glob("guest-*"):
        try:
            state = State(**json.loads((folder / "state.json").read_text()))
        except FileNotFoundError:
            if not _being_made(folder):
                forget(folder)
            continue
        except (OSError, ValueError, TypeError):
            continue
        if state.alive():
            found.append(state)
        else:
            forget(folder)
    return sorted(found, key=lambda state: state.start_ticks)


def _being_made(folder: Path) -> bool:
    """Whether the process that made the folder, whose pid its name has, still runs."""
    with contextlib.suppress(ValueError, IndexError):
        return start_ticks(int(folder.name.split("-")[1])) is not None
    return False


def only(pid: int | None = None) -> State:
    """The guest that is meant: the one that runs, or the one with this pid."""
    guests = running()
    if pid is not None:
        guests = [guest for guest in guests if guest.pid == pid]
    if not guests:
        which = "no guest runs" if pid is None else f"no guest runs with pid {pid}"
        raise ShmgemmError(f"{which}: start one with `shmgemm guest boot`")
    if len(guests) > 1:
        pids = ", ".join(str(guest.pid) for guest in guests)
        raise ShmgemmError(f"{len(guests)} guests run: say which with --pid, one of {pids}")
    return guests[0]


def start_ticks(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
