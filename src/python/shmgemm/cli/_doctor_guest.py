"""The guest path in `shmgemm doctor`: what it is built from, what is built, and who took part.

Nothing is built or started here; `doctor --run --guest` does that through a session.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ShmgemmError
from ..guest import _cache, _debian, _image, _kernel, _machine, _programs, _status
from ..guest._progress import Progress
from ._finding import Finding, program_on_path

if TYPE_CHECKING:
    from ..session import Session

_BUILD = "`shmgemm guest build` makes it, once: up to 10 minutes"


def _qemu() -> Finding:
    return program_on_path("QEMU", _machine.QEMU, "for --guest: apt-get install qemu-system-misc")


def _cross_compiler() -> Finding:
    advice = "for --guest: apt-get install gcc-riscv64-linux-gnu g++-riscv64-linux-gnu"
    return program_on_path("cross gcc", f"{_kernel.CROSS}gcc", advice)


def _kernel_source() -> Finding:
    name = "kernel source"
    if not _kernel.TARBALL.is_file():
        advice = "for --guest: apt-get install linux-source-6.12"
        return Finding(name, False, f"no {_kernel.TARBALL}", False, advice)
    return Finding(name, True, str(_kernel.TARBALL), False)


def _packages() -> Finding:
    """Whatever else Debian has to bring: compilers, tools, headers."""
    name = "guest tools"
    wanted = _debian.BOOT | _debian.BUILD
    absent = _debian.missing(wanted.items())
    if not absent:
        return Finding(name, True, f"all {len(wanted)} Debian packages", False)
    advice = "for --guest: as root `shmgemm guest build` installs them, or run: "
    advice += _debian.command_to_install(absent)
    return Finding(name, False, f"not installed: {' '.join(absent)}", False, advice)


def _guest_image() -> Finding:
    name = "guest image"
    try:
        image = _image.find()
    except (ShmgemmError, OSError) as error:
        return Finding(name, False, _first_line(error), False, _BUILD)
    return Finding(name, True, _in_cache(image.kernel_build, image.initramfs.parent), False)


def _plugin() -> Finding:
    name = "QEMU plug-in"
    try:
        with _cache.looking():
            plugin = _programs.plugin(Progress(show=False))
    except (ShmgemmError, OSError) as error:
        return Finding(name, False, _first_line(error), False, _BUILD)
    return Finding(name, True, _in_cache(plugin.parent), False)


def _in_cache(*folders: Path) -> str:
    return f"{', '.join(folder.name for folder in folders)} in {_cache.root()}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


CHECKS = (_qemu, _cross_compiler, _kernel_source, _packages, _guest_image, _plugin)


@dataclass(frozen=True)
class Party:
    """One of those that a command passes, and what it says of itself."""

    name: str
    ok: bool
    text: str


def parties(session: Session) -> list[Party]:
    """Each party of a session through a guest, in the order in which a command meets them.

    Every one of them must have seen the commands that the session has sent.
    """
    machine = session.guest
    assert machine is not None
    sent = session.stats()["commands"]
    status, output = machine.exec(["sstctl", "info"])
    said = _status.ask(machine.port)
    told = output.partition("\n")[0].removeprefix("driver").strip()
    return [
        Party("client", sent > 0, f"{sent} commands sent"),
        _server(machine.port, said, sent),
        _seen("driver", f"/dev/sst0, {told}", said.get("driver"), sent, status == 0),
        _seen("QEMU's device", f"QEMU pid {machine.pid}", said.get("virtio_device"), sent),
        _engine(said, sent),
    ]


def _server(port: int, said: dict[str, Any], sent: int) -> Party:
    counters = said["counters"]
    text = f"127.0.0.1:{port} ({said['state']}): {counters['commands']} commands,"
    text += f" {counters['matrix_bytes']} matrix bytes"
    if said["reason"]:
        text += f"; {said['reason']}"
    right = said["state"] == "device" and counters["matrix_bytes"] == 0
    return Party("device server", right and counters["commands"] >= sent, text)


def _seen(
    name: str, text: str, counters: dict[str, int] | None, sent: int, right: bool = True
) -> Party:
    if not counters:
        return Party(name, False, f"{text}: counts nothing")
    text += f": {counters['commands']} commands"
    return Party(name, right and counters["commands"] >= sent, text)


def _engine(said: dict[str, Any], sent: int) -> Party:
    info = said["info"]
    if info is None:
        return Party("engine", False, "does not answer")
    text = f"{info['engine']} ({info['model']}): {info['link_commands']} commands by its link"
    return Party("engine", info["link_commands"] >= sent, text)
