"""What Debian provides: the packages a build needs, and sources of packages.

Sources come through a package list of our own, made from the machine's, so that its settings stay
as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from ..errors import ShmgemmError, Unsupported
from . import _cache
from ._progress import Progress

# Packages to boot and to build, each with a file that it brings.
BOOT = {"qemu-system-misc": "/usr/bin/qemu-system-riscv64"}
BUILD = {
    "gcc": "/usr/bin/gcc",
    "make": "/usr/bin/make",
    "bc": "/usr/bin/bc",
    "bison": "/usr/bin/bison",
    "flex": "/usr/bin/flex",
    "xz-utils": "/usr/bin/xz",
    "gcc-riscv64-linux-gnu": "/usr/bin/riscv64-linux-gnu-gcc",
    "g++-riscv64-linux-gnu": "/usr/bin/riscv64-linux-gnu-g++",
    "linux-source-6.12": "/usr/src/linux-source-6.12.tar.xz",
    "nlohmann-json3-dev": "/usr/include/nlohmann/json.hpp",
    "dpkg-dev": "/usr/bin/dpkg-source",
    "meson": "/usr/bin/meson",
    "ninja-build": "/usr/bin/ninja",
    "pkg-config": "/usr/bin/pkg-config",
    "libglib2.0-dev": "/usr/include/glib-2.0/glib.h",
    "libpixman-1-dev": "/usr/include/pixman-1/pixman.h",
    "libfdt-dev": "/usr/include/libfdt.h",
}


def missing(packages: Iterable[tuple[str, str]]) -> list[str]:
    """Those whose file is not there."""
    return [package for package, file in packages if not os.path.exists(file)]


def command_to_install(packages: Iterable[str]) -> str:
    return f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"


def need(packages: Iterable[tuple[str, str]], progress: Progress) -> None:
    """Install those whose file is not there, as root; else say how.

    Raises Unsupported with the one command that installs them.
    """
    absent = missing(packages)
    if not absent:
        return
    command = command_to_install(absent)
    if shutil.which("apt-get") is None:
        raise Unsupported(
            "a guest needs what Debian calls " + ", ".join(absent) + ": install them, then try"
            " again"
        )
    if os.geteuid() != 0:
        raise Unsupported(
            f"a guest needs Debian packages that are not installed; run this, then try again:\n"
            f"  sudo sh -c '{command}'"
        )
    with progress.step(f"installing {' '.join(absent)}"):
        _cache.run(
            ["sh", "-c", command],
            env={"DEBIAN_FRONTEND": "noninteractive"},
            each_line=progress.line,
        )


def source_version(package: str) -> str:
    """The version of the source that an installed package was built from."""
    absent = f"{package} is not installed as a Debian package: its source is needed"
    try:
        done = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${source:Version}", package],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        raise Unsupported(absent) from None
    if done.returncode or not done.stdout:
        raise Unsupported(absent)
    return done.stdout


def unpack_source(package: str, version: str | None, folder: Path, progress: Progress) -> Path:
    """Fetch a source package, of this version or the newest, and unpack it below `folder`."""
    lists = folder / "apt"
    options = _private_lists(lists)
    name = package if version is None else f"{package}={version}"
    _cache.run(["apt-get", *options, "update"], each_line=progress.line)
    _cache.run(
        ["apt-get", *options, "source", "--download-only", name],
        cwd=folder,
        each_line=progress.line,
    )
    (description,) = folder.glob(f"{package}_*.dsc")
    target = folder / "source"
    _cache.run(["dpkg-source", "--no-check", "--extract", description, target])
    shutil.rmtree(lists)
    for file in folder.glob(f"{package}_*"):
        file.unlink()
    return target


def _private_lists(folder: Path) -> list[str]:
    """apt-get's options for a list of sources of our own."""
    for name in ("sources", "lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    count = 0
    for file in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")):
        if file.suffix in (".list", ".sources") and file.is_file():
            text = _sources_of(file.read_text(), file.suffix)
            if text:
                (folder / "sources" / file.name).write_text(text)
                count += 1
    if not count:
        raise ShmgemmError("no list of packages in /etc/apt: sources cannot be fetched")
    return [
        "-qq",
        "-o=APT::Sandbox::User=root" if os.geteuid() == 0 else "-o=Debug::NoLocking=true",
        "-o=Dir::Etc::sourcelist=/dev/null",
        f"-o=Dir::Etc::sourceparts={folder / 'sources'}",
        f"-o=Dir::State::Lists={folder / 'lists'}",
        f"-o=Dir::Cache={folder}",
    ]


def _sources_of(text: str, suffix: str) -> str:
    """The entries of an apt list that have binary packages, asking for sources instead."""
    if suffix == ".list":
        lines = [line for line in text.splitlines() if re.match(r"deb\s", line)]
        return "".join(f"deb-src{line[3:]}\n" for line in lines)
    return re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
