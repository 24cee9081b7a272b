"""QEMU without a guest: a driver of ours works virtio-mmio through QEMU's qtest protocol.

The machine's processor never runs, so what the device sees of its guest is what a test wrote, good
or bad. Registers and queue are those of the virtio specification 1.2, 4.2.2 and 2.7.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QEMU = "qemu-system-riscv64"
TIMEOUT_S = 60.0
RAM = 0x8000_0000
RAM_BYTES = 128 << 20
MMIO = [0x1000_1000 + 0x1000 * slot for slot in range(8)]
DEVICE_ID = 63

NEXT, WRITE, INDIRECT = 1, 2, 4
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 0x40
USED_INTERRUPT, CONFIG_INTERRUPT = 1, 2
VERSION_1, INDIRECT_DESC = 1 << 32, 1 << 28

_DESC = struct.Struct("<QIHH")


@dataclass(frozen=True)
class Part:
    """One descriptor of a chain."""

    address: int
    size: int
    writable: bool = False


def wait_for(condition, what: str):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.002)
    return value


class Machine:
    """A QEMU whose memory and registers a test reads and writes."""

    def __init__(self, plugin: Path, folder: Path, *options: str) -> None:
        self._log = (folder / "qemu.log").open("wb+")
        path = folder / "qtest.sock"
        words = [QEMU, "-M", "virt", "-m", "128M", "-S", "-bios", "none", "-display", "none"]
        words += ["-nodefaults", "-global", "virtio-mmio.force-legacy=false"]
        words += ["-qtest", f"unix:{path},server=on,wait=off", "-qtest-log", "none", *options]
        self.process = subprocess.Popen(
            words,
            env={**os.environ, "LD_PRELOAD": str(plugin)},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        wait_for(lambda: self._connects(path), "QEMU's qtest socket")
        self._file = self._socket.makefile("rw")

    def _connects(self, path: Path) -> bool:
        assert self.process.poll() is None, f"QEMU died of {self.process.poll()}: {self.log()}"
        return self._socket.connect_ex(str(path)) == 0

    def close(self) -> None:
        self._file.close()
        self._socket.close()
        self.process.terminate()
        self.process.wait(TIMEOUT_S)
        self._log.close()

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def command(self, text: str) -> str:
        assert self.process.poll() is None, f"QEMU died of {self.process.poll()}: {self.log()}"
        self._file.write(text + "\n")
        self._file.flush()
        answer = self._file.readline().strip()
        assert answer.startswith("OK"), f"{text[:60]} answered {answer!r}: {self.log()}"
        return answer[2:].strip()

    def read(self, address: int, size: int) -> bytes:
        return bytes.fromhex(self.command(f"read {address:#x} {size:#x}")[2:])

    def write(self, address: int, content: bytes) -> None:
        if content:
            self.command(f"write {address:#x} {len(content):#x} 0x{content.hex()}")

    def readl(self, address: int) -> int:
        return int(self.command(f"readl {address:#x}"), 16)

    def writel(self, address: int, value: int) -> None:
        self.command(f"writel {address:#x} {value:#x}")


class Driver:
    """The driver's side of one virtio-mmio device, with one split virtqueue."""

    def __init__(self, machine: Machine, size: int = 256, features: int = VERSION_1) -> None:
        self.machine = machine
        (self.base,) = (base for base in MMIO if machine.readl(base + 8) == DEVICE_ID)
        self.size = size
        self.features = features
        self.descriptors, self.available, self.used = RAM, RAM + 0x4000, RAM + 0x5000
        self._heap = self._heap_begin = RAM + 0x10000
        self.set_up()

    def register(self, offset: int) -> int:
        return self.machine.readl(self.base + offset)

    def set_register(self, offset: int, value: int) -> None:
        self.machine.writel(self.base + offset, value)

    @property
    def status(self) -> int:
        return self.register(0x70)

    def reset(self) -> None:
        self.set_register(0x70, 0)

    def set_up(self) -> None:
        """Reset, negotiate, give it an empty queue."""
        self.reset()
        self.set_register(0x70, ACKNOWLEDGE | DRIVER)
        for half in (0, 1):
            self.set_register(0x24, half)
            self.set_register(0x20, self.features >> 32 * half & 0xFFFFFFFF)
        self.set_register(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        assert self.status & FEATURES_OK
        self.machine.write(self.available, bytes(4 + 2 * self.size))
        self.machine.write(self.used, bytes(4 + 8 * self.size))
        self.set_register(0x30, 0)
        self.set_register(0x38, self.size)
        for offset, address in (
            (0x80, self.descriptors),
            (0x90, self.available),
            (0xA0, self.used),
        ):
            self.set_register(offset, address & 0xFFFFFFFF)
            self.set_register(offset + 4, address >> 32)
        self.set_register(0x44, 1)
        self.set_register(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        self._offered = self._seen = 0
        self._free = list(range(self.size))
        self._heap = self._heap_begin

    def buffer(self, size: int, content: bytes = b"") -> int:
        """The address of fresh memory of the guest."""
        address, self._heap = self._heap, self._heap + (size + 63 & ~63)
        if self._heap > RAM + RAM_BYTES:
            self._heap = self._heap_begin
            return self.buffer(size, content)
        self.machine.write(address, content)
        return address

    def describe(self, parts: Sequence[Part]) -> int:
        """Writes a chain's descriptors; its head."""
        indices = [self._free.pop(0) for _ in parts]
        for index, part, following in zip(indices, parts, [*indices[1:], None], strict=True):
            flags = (WRITE if part.writable else 0) | (NEXT if following is not None else 0)
            self.raw_descriptor(index, part.address, part.size, flags, following or 0)
        return indices[0]

    def raw_descriptor(
        self, index: int, address: int, size: int, flags: int, following: int
    ) -> None:
        packed = _DESC.pack(address & (1 << 64) - 1, size & 0xFFFFFFFF, flags, following)
        self.machine.write(self.descriptors + 16 * index, packed)

    def offer(self, *heads: int) -> None:
        """Makes chains available."""
        for head in heads:
            slot = self.available + 4 + 2 * (self._offered % self.size)
            self.machine.write(slot, struct.pack("<H", head))
            self._offered = self._offered + 1 & 0xFFFF
        self.machine.write(self.available + 2, struct.pack("<H", self._offered))

    def kick(self) -> None:
        self.set_register(0x50, 0)

    def take_used(self) -> list[tuple[int, int]]:
        """(head, bytes written) of the chains used since the last call."""
        (index,) = struct.unpack("<H", self.machine.read(self.used + 2, 2))
        taken = []
        while self._seen != index:
            slot = self.used + 4 + 8 * (self._seen % self.size)
            taken.append(struct.unpack("<II", self.machine.read(slot, 8)))
            self._seen = self._seen + 1 & 0xFFFF
        return taken

    def wait_used(self, count: int) -> list[tuple[int, int]]:
        """Exactly `count` chains, in the order they are used."""
        taken: list[tuple[int, int]] = []

        def enough() -> bool:
            taken.extend(self.take_used())
            return len(taken) >= count

        wait_for(enough, f"{count} chains are used")
        assert len(taken) == count
        return taken

    def interrupts(self) -> int:
        """What was raised since the last call."""
        raised = self.register(0x60)
        self.set_register(0x64, raised)
        return raised

    def config(self) -> dict[str, int]:
        """The configuration space of virtio_sst.h, read twice where it changes meanwhile."""
        names = "abi_major abi_minor index connected devices generation reserved region_bytes"
        names += " region_id0 region_id1 clock_hz commands requests completed no_device bad_chains"
        names += " bytes_to_engine bytes_from_engine sojourn_ns"
        while True:
            before = self.register(0xFC)
            content = b"".join(
                struct.pack("<I", self.register(0x100 + at)) for at in range(0, 120, 4)
            )
            if self.register(0xFC) == before:
                return dict(
                    zip(names.split(), struct.unpack("<HHIIIII12Q", content)[:19], strict=False)
                )
