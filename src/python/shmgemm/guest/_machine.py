"""A guest that runs: QEMU's command line, its process, and the way to READY."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DeviceLost, ShmgemmError
from . import _agent, _state
from ._image import Image, build
from ._initramfs import Archive

QEMU = "qemu-system-riscv64"
SERVER_PORT = 9999
MEMORY_MIB = 512
REGION_BYTES = 256 << 20  # where the guest has an engine of its own
# On one a command takes half the CPU time that it takes on two, where each wake-up crosses from one
# to the other. The debug kernel has two, for races to show.
PROCESSORS = {"production": 1, "debug": 2}
# Three levels of page tables, not five: QEMU throws its TLB away each time that the guest's kernel
# reaches into user memory, and looks every page up again. And no interrupt for each packet sent.
KERNEL_WORDS = "console=hvc0 no4lvl virtio_net.napi_tx=0"
READY_TIMEOUT_S = 10.0
_POLL_S = 0.02
_STOP_TIMEOUT_S = 5.0
_TAIL_LINES = 25
_PORT_ATTEMPTS = 5
_PORT_TAKEN = "Could not set up host forwarding rule"


class GuestError(ShmgemmError):
    """The guest did not start, or ended; the message has the end of its console."""


class Guest:
    """One RISC-V machine. Also a context manager, which starts and stops it.

    Args:
        region_path: the region's file, or /proc/PID/fd/N; None: a guest without a region.
        link_path: the Unix socket where an engine listens, or will; None: without the device.
        share: a folder of the host, at /mnt/shared in the guest.
        port: of the device server on the host's loopback; 0 takes a free one.
        index: of the engine's device that older records mean.
        image: what to boot; None builds it.
        owned: the guest dies with this process. False: it stays after it.
        memory_mib: of the guest.
        hardware: parameters of a device: an engine for it, with a region of its own, is started
            beside the guest and ends with it. In place of region_path and link_path.

    `boot_s` is how long it took from start() to READY, once wait_ready() has returned.
    """

    def __init__(
        self,
        region_path: str | Path | None,
        link_path: str | Path | None,
        share: str | Path | None = None,
        port: int = 0,
        index: int = 0,
        *,
        image: Image | None = None,
        owned: bool = True,
        memory_mib: int = MEMORY_MIB,
        hardware: Mapping[str, str] | None = None,
    ) -> None:
        if hardware is not None and (region_path is not None or link_path is not None):
            raise ValueError("hardware is for a guest with an engine of its own: no region_path")
        if share is not None and not Path(share).is_dir():
            raise NotADirectoryError(f"share = {str(share)!r}: no such folder")
        if not 0 <= port <= 65535:
            raise ValueError(f"port = {port}: expected 0 to 65535")
        self.image = image or build()
        self.port = port
        self.boot_s: float | None = None
        self._began_s = 0.0
        self._region = None if region_path is None else str(region_path)
        self._link = None if link_path is None else str(link_path)
        self._share = None if share is None else str(Path(share).resolve())
        self._index = index
        self._owned = owned
        self._memory_mib = memory_mib
        self._hardware = hardware
        self._fixed_port = port != 0
        self._token = secrets.token_hex(_agent.TOKEN_BYTES // 2)
        self._agent_port = 0
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Guest:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise GuestError("the guest was not started")
        return self._process.pid

    @property
    def console_path(self) -> Path:
        """What the guest's kernel and server have written."""
        if self._folder is None:
            raise GuestError("the guest was not started")
        return self._folder / "console.log"

    def start(self) -> None:
        """Start QEMU. Returns when it runs, long before the guest has booted.

        Raises GuestError where QEMU ends at once, with what it said; ShmgemmError where the port is
        in use.
        """
        if self._process is not None:
            raise GuestError("the guest was started before")
        if shutil.which(QEMU) is None:
            raise GuestError(f"no {QEMU} on PATH: install Debian's qemu-system-misc")
        self._began_s = time.monotonic()
        self._folder = _state.new_folder()
        try:
            self._write_initramfs()
            if self._hardware is not None:
                self._make_region()
            for attempt in range(_PORT_ATTEMPTS):
                if self._try_start(last=attempt + 1 == _PORT_ATTEMPTS):
                    break
            if self._hardware is not None:
                self._start_engine(self._hardware)
        except BaseException:
            self.stop()
            raise

    def _make_region(self) -> None:
        """Of zeros: its engine takes it as new."""
        assert self._folder is not None
        self._region, self._link = str(self._folder / "region"), str(self._folder / "engine.sock")
        with open(self._region, "wb") as file:
            file.truncate(REGION_BYTES)

    def _start_engine(self, hardware: Mapping[str, str]) -> None:
        assert self._folder is not None
        words = [
            str(Path(__file__).parents[1] / "bin" / "shmgemm-engine"),
            *("--region", str(self._region), "--link", str(self._link)),
            *("--parent", str(self.pid)),
            *(f"{key}={value}" for key, value in hardware.items()),
        ]
        with (self._folder / "engine.log").open("wb") as log:
            subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def region_path(self) -> str | None:
        """The file of the guest's region."""
        return self._region

    def _try_start(self, last: bool) -> bool:
        """Start QEMU and wait until it has its ports; False: somebody else was quicker."""
        if not self._fixed_port:
            self.port = _free_port()
        elif not _is_free(self.port):
            raise GuestError(
                f"port {self.port} on 127.0.0.1 is in use: stop what listens there, or take another"
            )
        self._agent_port = _free_port()
        self._process = self._spawn()
        while self._process.poll() is None:
            if _accepts(self.port):
                self._record()
                return True
            time.sleep(_POLL_S)
        said = self._errors()
        if _PORT_TAKEN in said and not last:
            return False
        raise GuestError(f"QEMU ended with status {self._process.returncode}: {said}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        words = ["env", f"LD_PRELOAD={self.image.plugin}", QEMU, *self._options()]
        if self._owned:
            words = ["setpriv", "--pdeathsig", "KILL", *words]
        errors = (self._folder / "qemu.log").open("wb")
        started: list[subprocess.Popen[bytes] | OSError] = []
        known = threading.Event()

        def own() -> None:
            # Its death is QEMU's: so this thread lives as long as QEMU, or as this process.
            try:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                started.append(error)
                known.set()
                return
            started.append(process)
            known.set()
            process.wait()

        with errors:
            threading.Thread(target=own, name="shmgemm-guest", daemon=True).start()
            known.wait()
        if isinstance(started[0], OSError):
            raise GuestError(f"cannot run {words[0]}: {started[0]}")
        return started[0]

    def _record(self) -> None:
        began = _state.start_ticks(self.pid)
        if began is None:
            raise self._error("QEMU ended")
        _state.write(
            _state.State(
                pid=self.pid,
                start_ticks=began,
                port=self.port,
                agent_port=self._agent_port,
                token=self._token,
                folder=str(self._folder),
                region=self._region,
                link=self._link,
            )
        )

    def _write_initramfs(self) -> None:
        """The image's, and after it an archive of this guest's own with the agent's token."""
        assert self._folder is not None
        extra = Archive()
        extra.file("etc/agent-token", self._token.encode(), 0o600)
        base = self.image.initramfs.read_bytes()
        padded = base + bytes(-len(base) % 4)
        (self._folder / "initramfs").write_bytes(padded + extra.encoded())

    def _options(self) -> list[str]:
        assert self._folder is not None
        # aia=aplic-imsic: the default machine gives PCI devices no message-signalled interrupts.
        options = ["-M", "virt,aia=aplic-imsic"]
        options += ["-smp", str(PROCESSORS[self.image.variant])]
        options += ["-m", f"{self._memory_mib}M", "-display", "none", "-monitor", "none"]
        options += ["-serial", f"file:{_quoted(self.console_path)}", "-nodefaults"]
        options += ["-kernel", str(self.image.kernel), "-initrd", str(self._folder / "initramfs")]
        options += ["-append", KERNEL_WORDS]
        forward = f"hostfwd=tcp:127.0.0.1:{self.port}-:{SERVER_PORT}"
        forward += f",hostfwd=tcp:127.0.0.1:{self._agent_port}-:{_agent.GUEST_PORT}"
        options += [
            "-netdev",
            f"user,id=net,{forward}",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ]
        if self._region is not None:
            options += self._region_options(self._region)
        if self._link is not None:
            device = f"virtio-sst-pci,socket={_quoted(self._link)},index={self._index}"
            options += ["-device", device]
        if self._share is not None:
            share = f"local,path={_quoted(self._share)},mount_tag=shared,security_model=none"
            options += ["-virtfs", share]
        return options

    def _region_options(self, region: str) -> list[str]:
        try:
            size = os.stat(region).st_size
        except OSError as error:
            raise GuestError(f"region {region!r}: {error.strerror}") from None
        if size < 1 << 20 or size & (size - 1):
            raise GuestError(f"region {region!r} has {size} bytes: a power of two is expected")
        # Without share=on the guest would write into memory of its own, silently.
        backend = f"memory-backend-file,id=region,share=on,mem-path={_quoted(region)},size={size}"
        return ["-object", backend, "-device", "ivshmem-plain,memdev=region"]

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the device server in the guest serves.

        Raises GuestError with the end of the console and what is missing.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            text = self.console()
            if re.search(r"(?m)^READY\s*$", text):
                if self.boot_s is None:
                    self.boot_s = time.monotonic() - self._began_s
                return self._await_agent(deadline)
            if not self.running():
                raise self._error("QEMU ended before the guest was ready")
            if time.monotonic() > deadline or "Kernel panic" in text:
                raise self._error(
                    f"the guest was not ready within {timeout_s:g} s: {_missing(text)}"
                )
            time.sleep(_POLL_S)

    def _await_agent(self, deadline: float) -> None:
        """It is started before the server says READY, and may listen a moment later."""
        while True:
            try:
                self.exec(["true"], max(deadline - time.monotonic(), 1.0))
                return
            except DeviceLost as error:
                if time.monotonic() > deadline:
                    raise self._error(f"the guest's agent does not answer: {error}") from None
            time.sleep(_POLL_S)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def console(self) -> str:
        try:
            return _state.console_text(self.console_path)
        except FileNotFoundError:
            return ""

    def exec(
        self, words: Sequence[str], timeout_s: float = 30.0, content: bytes = b""
    ) -> tuple[int, str]:
        """Run a command in the guest: its exit status and its output, both streams as one.

        Raises DeviceLost where the guest has no agent or goes down, DeviceTimeout.
        """
        if not self.running():
            raise DeviceLost("the guest does not run")
        return _agent.run(self._agent_port, self._token, words, timeout_s, content)

    def stop(self) -> None:
        """End the guest, at once; what it was doing is lost. Twice does no harm."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._folder is not None:
            _state.forget(self._folder)

    def _errors(self) -> str:
        assert self._folder is not None
        return (self._folder / "qemu.log").read_text(errors="replace").strip()

    def _error(self, what: str) -> GuestError:
        parts = [what]
        if said := self._errors():
            parts.append(f"QEMU said:\n{said}")
        tail = "\n".join(self.console().splitlines()[-_TAIL_LINES:])
        parts.append(f"the end of its console:\n{tail}" if tail else "its console is empty")
        return GuestError("; ".join(parts))


def _missing(console: str) -> str:
    """What a guest that is not ready has not reached."""
    if "Kernel panic" in console:
        return "its kernel panicked"
    if "Linux version" not in console:
        return "its kernel has not started"
    if "Run /init" not in console:
        return "its kernel has not reached /init"
    return "/init runs, but the device server has not said READY"


def _quoted(path: str | Path) -> str:
    """A path within a QEMU option, where a comma ends a value and a double one stands for it."""
    return str(path).replace(",", ",,")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _accepts(port: int) -> bool:
    """Whether something listens there, without connecting to it."""
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted and fields[3] == "0A":
            return True
    return False
