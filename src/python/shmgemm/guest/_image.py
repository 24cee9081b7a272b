"""What a guest boots from, put together from parts that are each built once."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

from . import _cache, _debian, _kernel, _programs, _sources
from ._initramfs import Archive
from ._progress import Progress

VARIANTS = tuple(_kernel.FRAGMENTS)
_FOLDERS = (
    *("bin", "sbin", "lib", "lib/modules", "etc", "root", "run", "tmp"),
    *("dev", "proc", "sys", "mnt", "mnt/shared"),
)


@dataclass(frozen=True)
class Image:
    """Paths of a complete build."""

    variant: str
    kernel: Path  # what QEMU boots
    initramfs: Path
    plugin: Path  # virtio-sst.so, for LD_PRELOAD into QEMU
    kernel_build: Path  # a KDIR for external modules
    module: Path


def build(variant: str = "production", progress: bool = True) -> Image:
    """Build what is not there yet: up to 10 minutes the first time, no time afterwards.

    Args:
        variant: "production", or "debug": a kernel that watches itself (KASAN, lockdep, ...).
        progress: write a line to stderr that moves.

    Raises:
        Unsupported: Debian packages are missing and cannot be installed; the message says how.
        ShmgemmError: a step failed; the message has the last lines of its output.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant = {variant!r}: expected one of {', '.join(VARIANTS)}")
    _sources.check()
    shown = Progress(progress)
    _debian.need((_debian.BOOT | _debian.BUILD).items(), shown)
    return _assemble(variant, shown)


def find() -> Image:
    """The production image where it is complete; builds nothing.

    Raises:
        Unsupported, ShmgemmError: it is not; the message says what is missing first.
    """
    _sources.check()
    with _cache.looking():
        return _assemble("production", Progress(show=False))


def _assemble(variant: str, shown: Progress) -> Image:
    kernel = _kernel.build(variant, shown)
    module = _programs.module(kernel, shown)
    return Image(
        variant=variant,
        kernel=kernel / "arch/riscv/boot/Image",
        initramfs=_initramfs(module, shown),
        plugin=_programs.plugin(shown),
        kernel_build=kernel,
        module=module,
    )


def _initramfs(module: Path, progress: Progress) -> Path:
    """Server as /init, busybox's applets, sstctl, the agent, the kernel module."""
    server, sstctl = _programs.server(progress)
    programs = {
        "init": server,
        "bin/busybox": _programs.busybox(progress),
        "bin/sstctl": sstctl,
        "sbin/guest-agent": _programs.agent(progress),
    }
    applets = _applets()
    parts = [program.parent.name for program in programs.values()]
    key = _cache.digest(module.parent.name, parts, applets, _FOLDERS)

    def make(folder: Path) -> None:
        archive = Archive()
        for name in _FOLDERS:
            archive.folder(name)
        archive.character_device("dev/console", 5, 1)
        for name, program in programs.items():
            archive.file(name, program.read_bytes(), 0o755)
        for applet in applets:
            archive.link(f"bin/{applet}", "busybox")
        archive.file("lib/modules/virtio-sst.ko", module.read_bytes())
        (folder / "initramfs.cpio.gz").write_bytes(gzip.compress(archive.encoded(), 6, mtime=0))

    return _cache.made("initramfs", key, make) / "initramfs.cpio.gz"


def _applets() -> list[str]:
    """The names that busybox answers to: those its configuration lists as `# applet:`."""
    lines = (_sources.GUEST / "busybox.config").read_text().splitlines()
    return [name for line in lines if line.startswith("# applets:") for name in line.split()[2:]]
