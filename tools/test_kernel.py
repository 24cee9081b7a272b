#!/usr/bin/env python3
"""What `make test-kernel` runs: the driver's stress in a kernel that watches itself.

Builds the debug kernel (once; cached), the module and tests/guest/stress, boots them in QEMU with
an engine that misbehaves, and looks for splats in what the kernel said. Then the control: modules
built with a mistake, each of which must turn the same run red.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STRESS = ROOT / "tests" / "guest" / "stress"
sys.path.insert(0, str(STRESS))

import fake_engine  # noqa: E402

from shmgemm.guest import _cache, _debian, _kernel, _programs  # noqa: E402
from shmgemm.guest._initramfs import Archive  # noqa: E402
from shmgemm.guest._progress import Progress  # noqa: E402

OUT = ROOT / "build" / "test-kernel"
TARBALL_6_1 = Path("/usr/src/linux-source-6.1.tar.xz")
QEMU = "qemu-system-riscv64"
# Generous: the machine may be busy, and a run that hangs is seen by the kernel's own watchdogs.
FULL_DEADLINE_S, QUICK_DEADLINE_S = 7200, 1800
COMMAND_LINE = "console=hvc0 printk.devkmsg=on kunit.enable=1 workqueue.watchdog_thresh=120"
SPLAT = re.compile(
    r"\bBUG[: ]|WARNING:|INFO: (?:task|rcu|trying)|rcu: INFO|KASAN|UBSAN|ODEBUG|Oops|Call Trace"
    r"|Kernel panic|unreferenced object|possible (?:recursive|circular)|inconsistent lock state"
    r"|refcount_t:|nobody cared|list_(?:add|del) corruption|Objects remaining|soft lockup"
    r"|STRESS FAILED|STRESS cannot|\bnot ok \d"
)
END = re.compile(r"STRESS ends: (\d+) calls, (\d+) answers, (\d+) failures")
UNIT_TESTS = re.compile(r"# virtio-sst: pass:(\d+) fail:0 skip:0")
# What each broken build must be found by.
CONTROLS = {
    "leak": re.compile(r"Objects remaining|unreferenced object"),
    "use-after-free": re.compile(r"KASAN: slab-use-after-free"),
    "sleep": re.compile(r"sleeping function called from invalid context"),
}


@dataclass(frozen=True)
class Parts:
    variant: str
    kernel: Path  # its build folder
    plugin: Path

    @property
    def watched(self) -> bool:
        return self.variant == "debug"


def build_parts(variant: str) -> Parts:
    progress = Progress(True)
    _debian.need((_debian.BOOT | _debian.BUILD).items(), progress)
    kernel = _kernel.build(variant, progress)
    OUT.mkdir(parents=True, exist_ok=True)
    _cache.run(["make", "-C", STRESS, f"CROSS_COMPILE={_kernel.CROSS}", f"OUT={OUT}"])
    return Parts(variant, kernel, _programs.plugin(progress))


def prepare_6_1(folder: Path) -> None:
    """What an external module needs of Linux 6.1; the kernel itself is not built."""
    source, build = folder / "source", folder / "build"
    source.mkdir()
    _cache.run(["tar", "-xf", TARBALL_6_1, "-C", source, "--strip-components=1"])
    make = [*_kernel.MAKE, "-C", source, f"O={build}"]
    _cache.run([*make, f"KCONFIG_ALLCONFIG={ROOT / 'guest/kernel/virt.config'}", "tinyconfig"])
    _cache.run([*make, "modules_prepare"])


def check_6_1() -> bool:
    """Does the module compile against Linux 6.1, without a warning?"""
    print("== build against Linux 6.1", flush=True)
    _debian.need([("linux-source-6.1", str(TARBALL_6_1))], Progress(True))
    key = _cache.digest(_debian.source_version("linux-source-6.1"), _kernel.compiler_version())
    kernel = _cache.made("kernel-6.1", key, prepare_6_1) / "build"
    make = [*_kernel.MAKE, "-C", ROOT / "kernel_module", f"KDIR={kernel}", "W=1"]
    said = _cache.run([*make, f"BUILD={OUT / '6.1'}", "clean", "modules"])
    warnings = [line for line in said.splitlines() if "warning:" in line]
    print("\n".join(warnings) if warnings else "   no warning")
    return not warnings


def build_initramfs(parts: Parts, name: str, broken: str = "") -> Path:
    """The stress as /init, with the module, and its unit tests, built as `name`."""
    folder = OUT / name
    make = [*_kernel.MAKE, "-C", ROOT / "kernel_module", f"KDIR={parts.kernel}"]
    units = "1" if parts.watched else ""
    _cache.run([*make, f"BUILD={folder}", f"KUNIT={units}", f"BROKEN={broken}"])
    archive = Archive()
    for path in ("dev", "proc", "sys"):
        archive.folder(path)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", (OUT / "stress").read_bytes(), 0o755)
    for module in folder.glob("*.ko"):
        archive.file(module.name, module.read_bytes())
    initramfs = folder / "initramfs.cpio.gz"
    initramfs.write_bytes(gzip.compress(archive.encoded(), 1, mtime=0))
    return initramfs


class Engine:
    """The fake engine, in a thread of this process."""

    def __init__(self, folder: Path) -> None:
        self.region, self.socket = folder / "region", folder / "engine.sock"
        self.seen: Counter[str] = Counter()
        self.socket.unlink(missing_ok=True)
        fake_engine.make_region(self.region)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        asyncio.run(fake_engine.run(self.socket, self.seen))


def qemu_command(parts: Parts, initramfs: Path, engine: Engine, quick: bool) -> list[str]:
    region = f"memory-backend-file,id=region,share=on,mem-path={engine.region}"
    region += f",size={fake_engine.REGION_BYTES}"
    append = COMMAND_LINE + (" stress.quick" if quick else "")
    append += "" if parts.watched else " stress.production"
    return [
        *(QEMU, "-M", "virt,aia=aplic-imsic", "-smp", "2", "-m", "1G"),
        *("-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(parts.kernel / "arch/riscv/boot/Image"), "-initrd", str(initramfs)),
        *("-append", append, "-object", region, "-device", "ivshmem-plain,memdev=region"),
        *("-device", f"virtio-sst-pci,socket={engine.socket}"),
    ]


def boot(parts: Parts, initramfs: Path, quick: bool, until: re.Pattern[str] | None = None) -> str:
    """What the console said until power-off, the deadline, or a line that `until` matches."""
    folder = initramfs.parent
    engine = Engine(folder)
    deadline = time.monotonic() + (QUICK_DEADLINE_S if quick else FULL_DEADLINE_S)
    command = qemu_command(parts, initramfs, engine, quick)
    console = folder / "console.log"
    with console.open("wb") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, "LD_PRELOAD": str(parts.plugin)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(1)
                if until and until.search(console.read_text(errors="replace")):
                    break
        finally:
            process.kill()
            process.wait()
    print(f"   the engine saw {dict(engine.seen)}")
    return console.read_text(errors="replace").replace("\r", "")


def judge(console: str, watched: bool) -> tuple[str, list[str]]:
    """A line of counts, and what is wrong: splats, and what should have been said."""
    wrong = [line.strip() for line in console.splitlines() if SPLAT.search(line)]
    end, units = END.search(console), UNIT_TESTS.search(console)
    if end is None:
        wrong.append("the stress did not come to its end")
    if watched and "STRESS kmemleak was scanned" not in console:
        wrong.append("kmemleak did not scan")
    if watched and units is None:
        wrong.append("the unit tests did not pass")
    counts = f"{end[1]} calls, {end[2]} answers" if end else "no counts"
    return f"{counts}, {units[1] if units else 'no'} unit tests", wrong


def run_stress(parts: Parts, quick: bool) -> tuple[str, bool]:
    print(f"== stress, {parts.variant} kernel", flush=True)
    counts, wrong = judge(boot(parts, build_initramfs(parts, parts.variant), quick), parts.watched)
    for line in wrong[:40]:
        print(f"   {line}")
    return f"{counts}, {len(wrong)} splats", not wrong


def run_control(parts: Parts, broken: str, expected: re.Pattern[str]) -> bool:
    print(f"== control: a module with a mistake ({broken})", flush=True)
    console = boot(parts, build_initramfs(parts, broken, broken), True, until=expected)
    found = expected.search(console)
    print(f"   red: {found[0]}" if found else "   NOT SEEN")
    return found is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the stress, no control")
    parser.add_argument(
        "--production", action="store_true", help="the same in the kernel that users boot"
    )
    options = parser.parse_args()
    quick = options.quick or options.production
    begin = time.monotonic()
    parts = build_parts("production" if options.production else "debug")
    summary, good = run_stress(parts, quick)
    if not quick:
        red = sum(run_control(parts, *control) for control in CONTROLS.items())
        summary += f", control red {red} of {len(CONTROLS)}"
        good = good and red == len(CONTROLS)
        good = check_6_1() and good
    print(
        f"make test-kernel: {'passed' if good else 'FAILED'}: {summary},"
        f" in {time.monotonic() - begin:.0f} s (consoles: {OUT.relative_to(ROOT)}/*/console.log)"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
