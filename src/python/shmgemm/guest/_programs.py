"""What is compiled for the guest beside its kernel, and the plug-in that QEMU loads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import _cache, _debian, _kernel, _sources
from ._progress import Progress


def _jobs() -> str:
    return f"-j{len(os.sched_getaffinity(0))}"


def module(kernel: Path, progress: Progress) -> Path:
    """virtio-sst.ko for a kernel's build folder."""
    key = _cache.digest(kernel.name, _sources.KERNEL_MODULE, _sources.ABI)

    def make(folder: Path) -> None:
        with progress.step("virtio-sst.ko, once"):
            _cache.run(
                [
                    *(*_kernel.MAKE, "-C", _sources.KERNEL_MODULE),
                    *(f"KDIR={kernel}", f"BUILD={folder / 'build'}"),
                ],
                each_line=progress.line,
            )
            (folder / "build" / "virtio_sst.ko").rename(folder / "virtio-sst.ko")
            shutil.rmtree(folder / "build")

    return _cache.made("virtio-sst-module", key, make) / "virtio-sst.ko"


def server(progress: Progress) -> tuple[Path, Path]:
    """The device server and sstctl."""
    key = _cache.digest(
        _kernel.compiler_version(),
        _sources.ROOT / "src",
        *(_sources.GUEST / name for name in ("Makefile", "server", "sstctl")),
    )

    def make(folder: Path) -> None:
        with progress.step("device server, once"):
            _cache.run(
                [
                    *("make", "-C", _sources.GUEST, _jobs()),
                    *(f"CROSS_COMPILE={_kernel.CROSS}", f"OUT={folder}"),
                ],
                each_line=progress.line,
            )

    folder = _cache.made("guest-server", key, make)
    return folder / "shmgemm-server", folder / "sstctl"


def agent(progress: Progress) -> Path:
    key = _cache.digest(_kernel.compiler_version(), _sources.GUEST / "agent")

    def make(folder: Path) -> None:
        with progress.step("guest agent, once"):
            source = _sources.GUEST / "agent"
            _cache.run(["make", "-C", source, f"CROSS_COMPILE={_kernel.CROSS}", f"OUT={folder}"])

    return _cache.made("guest-agent", key, make) / "guest-agent"


def busybox(progress: Progress) -> Path:
    """Debian's busybox source with the applets of guest/busybox.config, static."""
    fragment = _sources.GUEST / "busybox.config"
    key = _cache.digest(_kernel.compiler_version(), fragment)

    def make(folder: Path) -> None:
        with progress.step("busybox, once", 320):
            source = _debian.unpack_source("busybox", None, folder, progress)
            _cache.run(["make", "-C", source, "allnoconfig"])
            config = source / ".config"
            config.write_text(_replaced(config.read_text(), fragment.read_text()))
            _cache.run(["sh", "-c", "yes '' | make oldconfig"], cwd=source)
            _cache.run(
                ["make", "-C", source, f"CROSS_COMPILE={_kernel.CROSS}", _jobs(), "busybox"],
                each_line=progress.line,
            )
            (source / "busybox").rename(folder / "busybox")
            shutil.rmtree(source)

    return _cache.made("busybox", key, make) / "busybox"


def _replaced(config: str, fragment: str) -> str:
    """busybox's oldconfig takes the first value of an option: ours replace what is there."""
    ours = dict(line.split("=", 1) for line in fragment.splitlines() if line.startswith("CONFIG"))
    kept = [
        line
        for line in config.splitlines()
        if line.removeprefix("# ").split("=")[0].split(" ")[0] not in ours
    ]
    return "\n".join([*kept, *(f"{key}={value}" for key, value in ours.items())]) + "\n"


def qemu_headers(progress: Progress) -> tuple[Path, Path]:
    """The source of the installed QEMU, and the folder where its headers were generated."""
    version = _debian.source_version("qemu-system-misc")

    def make(folder: Path) -> None:
        with progress.step(f"headers of QEMU {version}, once"):
            source = _debian.unpack_source("qemu", version, folder, progress)
            build = folder / "build"
            build.mkdir()
            _cache.run([source / "configure", *QEMU_OPTIONS], cwd=build, each_line=progress.line)
            targets = _cache.run(["ninja", "-C", build, "-t", "targets", "all"]).splitlines()
            headers = [line.split(":")[0] for line in targets if ".h: CUSTOM_COMMAND" in line]
            _cache.run(["ninja", "-C", build, _jobs(), *_used(headers)], each_line=progress.line)

    folder = _cache.made("qemu", _cache.digest(version, QEMU_OPTIONS), make)
    return folder / "source", folder / "build"


QEMU_OPTIONS = (
    *("--target-list=riscv64-softmmu", "--without-default-features", "--disable-werror"),
    *("--with-git-submodules=ignore", "--disable-tools", "--disable-docs", "--enable-modules"),
)


def _used(headers: list[str]) -> list[str]:
    return [name for name in headers if name.startswith(("config-", "qapi/", "trace/"))]


def plugin(progress: Progress) -> Path:
    """virtio-sst.so for the installed QEMU."""
    version = _debian.source_version("qemu-system-misc")
    key = _cache.digest(version, _sources.QEMU_DEVICE, _sources.ABI)

    def make(folder: Path) -> None:
        source, build = qemu_headers(progress)
        with progress.step("virtio-sst.so, once"):
            _cache.run(
                [
                    *("make", "-C", _sources.QEMU_DEVICE, f"OUT={folder}"),
                    *(f"QEMU_SOURCE={source}", f"QEMU_BUILD={build}"),
                ]
            )

    return _cache.made("virtio-sst-plugin", key, make) / "virtio-sst.so"
