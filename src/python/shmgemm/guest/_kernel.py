"""The guest's kernel: Debian's linux-source-6.12, tinyconfig and the fragments of guest/kernel.

Its folder stays a KDIR: external modules are built against it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ShmgemmError
from . import _cache, _debian, _sources
from ._progress import Progress

TARBALL = Path("/usr/src/linux-source-6.12.tar.xz")
CROSS = "riscv64-linux-gnu-"
MAKE = ("make", "ARCH=riscv", f"CROSS_COMPILE={CROSS}")
# Added to virt.config, in this order.
FRAGMENTS = {"production": ("virt.config",), "debug": ("virt.config", "debug.config")}
_FILES = {"production": 1550, "debug": 2000}
# What a riscv kernel is not made of: two thirds of the source.
_LEFT_OUT = (
    *("Documentation/*/*", "tools/testing/selftests", "drivers/gpu/drm/amd/include/*"),
    *(f"arch/[!r]*.{suffix}" for suffix in ("c", "h", "S", "dts", "dtsi")),
)


def compiler_version() -> str:
    return _cache.run([f"{CROSS}gcc", "-dumpfullversion"]).strip()


def build(variant: str, progress: Progress) -> Path:
    """The build folder: arch/riscv/boot/Image in it, and what external modules need.

    Raises ShmgemmError where an option of a fragment cannot be had.
    """
    fragments = [_sources.KERNEL_CONFIG / name for name in FRAGMENTS[variant]]
    version = _debian.source_version("linux-source-6.12")
    source = _cache.made("kernel-source", _cache.digest(version), lambda to: _unpack(to, progress))
    key = _cache.digest(version, compiler_version(), *fragments)

    def make(folder: Path) -> None:
        with progress.step(f"kernel ({variant}), once", _FILES[variant]):
            _configure(source, folder, fragments)
            jobs = len(os.sched_getaffinity(0))
            _cache.run(
                [*MAKE, "-C", source, f"O={folder}", f"-j{jobs}", "Image", "modules"],
                each_line=progress.line,
            )

    return _cache.made("kernel", key, make, resume=True)


def _unpack(folder: Path, progress: Progress) -> None:
    with progress.step("unpacking the kernel's source, once"):
        exclude = [f"--exclude=linux-source-6.12/{pattern}" for pattern in _LEFT_OUT]
        _cache.run(["tar", "-xf", TARBALL, "-C", folder, "--strip-components=1", *exclude])


def _configure(source: Path, folder: Path, fragments: list[Path]) -> None:
    if (folder / ".config").exists():  # an earlier build was interrupted
        return
    _cache.run([*MAKE, "-C", source, f"O={folder}", "tinyconfig"])
    config = folder / ".config"
    text = "".join(fragment.read_text() for fragment in fragments)
    with config.open("a") as file:
        file.write(text)
    _cache.run([*MAKE, "-C", source, f"O={folder}", "olddefconfig"])
    have = set(config.read_text().splitlines())
    refused = [
        line for line in text.splitlines() if line.startswith("CONFIG_") and line not in have
    ]
    if refused:
        config.unlink()
        raise ShmgemmError(f"the kernel's configuration refuses {', '.join(refused)}")
