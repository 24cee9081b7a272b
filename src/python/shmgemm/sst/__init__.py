"""The SST element: where its library is, and how a session starts SST with it.

SST (the Structural Simulation Toolkit) is found through `sst-config` on PATH. The library is built
where SST was there when the package was built.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..errors import Unsupported
from ..hardware import Hardware

LIBRARY = "libshmgemm.so"
SUPPORTED = ("15", "16", "dev")  # major versions that the element is written for
_FOLDER = Path(__file__).parent
_NO_SST = "no sst-config on PATH: install SST (sst-simulator.org) and put its bin/ on PATH"
_REBUILD = "install shmgemm again from source (pip install --force-reinstall --no-deps .)"


@dataclass(frozen=True)
class Installation:
    """An SST: its `sst` executable and its version, "16.0.0", or "dev" of a checkout."""

    executable: str
    version: str

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]


def find() -> Installation:
    """The SST whose `sst-config` is first on PATH.

    Raises:
        Unsupported: there is none, or it is broken.
    """
    config = shutil.which("sst-config")
    if config is None:
        raise Unsupported(_NO_SST)
    executable = str(Path(_ask(config, "--prefix")) / "bin" / "sst")
    said = _ask(executable, "--version")
    version = re.search(r"Version \(?-?(\d+(\.\d+)+|dev)\b", said)
    if version is None:
        raise Unsupported(
            f"{executable} --version says {said[:80]!r}, expected `SST-Core Version (16.0.0)`:"
            " install SST again"
        )
    return Installation(executable, version[1])


def _ask(program: str, option: str) -> str:
    try:
        done = subprocess.run(
            [program, option], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unsupported(f"{program} {option}: {error}") from None
    return done.stdout.strip()


def built_for() -> str | None:
    """The version of SST that the element was built for; None where it was not built."""
    if not (_FOLDER / LIBRARY).is_file():
        return None
    return (_FOLDER / "built_for.txt").read_text().strip()


def library_folder() -> Path:
    """The folder to give SST with `--add-lib-path` or `SST_LIB_PATH`.

    Raises:
        Unsupported: this package was built without SST; the message says what to do.
    """
    if built_for() is not None:
        return _FOLDER
    if shutil.which("sst-config") is None:
        raise Unsupported(f"{_NO_SST}, then {_REBUILD}")
    installed = find()
    if installed.major not in SUPPORTED:
        raise Unsupported(
            f"SST {installed.version} is on PATH; the element {LIBRARY} is written for SST"
            f" {', '.join(SUPPORTED)}: put one of these on PATH, then {_REBUILD}"
        )
    raise Unsupported(
        f"this shmgemm was built before SST was there, so it has no {LIBRARY}: {_REBUILD}"
    )


def command(
    executable: str | None = None, configuration: str | None = None
) -> tuple[str, list[str]]:
    """What starts SST for a session: a program, and the words before those that the session adds.

    `configuration` is an SST configuration of the user's own, with a shmgemm.HostPort in it.

    Raises:
        Unsupported: no SST, one of another major version than the element's, or no element.
    """
    folder = library_folder()
    installed = find()
    wanted = built_for() or ""
    if installed.major != wanted.partition(".")[0]:
        raise Unsupported(
            f"SST {installed.version} is on PATH, the element {folder / LIBRARY} was built for SST"
            f" {wanted}: put that one on PATH, or {_REBUILD}"
        )
    if configuration is not None and not Path(configuration).is_file():
        raise FileNotFoundError(f"sst_config = {configuration!r}: no such file")
    words = [f"--add-lib-path={folder}", configuration or str(_FOLDER / "configuration.py"), "--"]
    return executable or installed.executable, words


def configuration_text(described: Hardware, devices: int) -> str:
    """An SST configuration with `devices` devices, to paste into a system of one's own."""
    parameters = "".join(
        f'    "{key}": "{value}",\n' for key, value in described.parameters.items()
    )
    return f"""\
# shmgemm: {described.label} ({described.digest}). Start it from Python:
# shmgemm.open(engine="sst", sst_config="<this file>", hardware=..., devices={devices})
import sst

host = sst.Component("host", "shmgemm.HostPort")
hardware = {{
{parameters}}}
for index in range({devices}):
    device = sst.Component(f"device{{index}}", "shmgemm.GemmDevice")
    device.addParams({{**hardware, "device": index}})
"""
