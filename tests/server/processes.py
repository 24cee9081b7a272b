"""The native device server and an engine as real processes, for the guest tests."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import shmgemm
from shmgemm import hardware

BIN = Path(shmgemm.__file__).parent / "bin"
DEADLINE_S = 60.0


class Process:
    """A program whose output is collected as it comes."""

    def __init__(self, words: list[str], **options: Any) -> None:
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        self._output: list[str] = []
        self._changed = threading.Condition()
        self.stopped = False
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._output.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def output(self) -> str:
        return "".join(self._output)

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """The last of `count` matches, as soon as the output has so many."""
        deadline = time.monotonic() + DEADLINE_S
        with self._changed:
            while True:
                found = list(re.finditer(pattern, self.output, re.M))
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                assert left > 0, f"no {pattern!r} in:\n{self.output}"
                assert self._reader.is_alive(), f"no {pattern!r}, and it ended:\n{self.output}"
                self._changed.wait(left)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


class Server(Process):
    """`shmgemm-server` on a free port."""

    def __init__(self, *options: str) -> None:
        super().__init__([str(BIN / "shmgemm-server"), "--port", "0", *options])
        try:
            self.wait_for(r"^READY$")
        except AssertionError:
            self.stop()
            raise
        self.port = int(self.wait_for(r"^Listening on TCP port (\d+)$")[1])


class Engine:
    """An embedded engine by hand: its link and region file; can be killed and started anew."""

    def __init__(self, folder: Path, preset: str = "tiny_4x4_ws") -> None:
        self.region, self.link = folder / "region", folder / "link"
        parameters = hardware.load(preset).parameters
        self._words = [
            str(BIN / "shmgemm-engine"),
            *("--region", str(self.region), "--region-bytes", str(64 << 20)),
            *("--link", str(self.link)),
            *(f"{key}={value}" for key, value in parameters.items()),
        ]
        self.start()

    def start(self) -> None:
        self.process = Process(self._words)
        self.process.wait_for("serves")

    def kill(self) -> None:
        self.process.stop(signal.SIGKILL)

    @property
    def server_options(self) -> tuple[str, ...]:
        return ("--link", str(self.link), "--region", str(self.region))
