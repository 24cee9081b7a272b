"""An observer between QEMU's device and an engine: passes on what it gets and counts the bytes."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class Relay:
    """Listens at `path` for QEMU, connects each link to the engine at `target`."""

    def __init__(self, path: Path, target: str) -> None:
        self.to_engine = self.to_device = 0
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                device, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                try:
                    engine.connect(self._target)
                except OSError:
                    device.close()
                    continue
                for source, sink, counter in (
                    (device, engine, "to_engine"),
                    (engine, device, "to_device"),
                ):
                    threading.Thread(
                        target=self._pass_on, args=(source, sink, counter), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, counter: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                setattr(self, counter, getattr(self, counter) + len(data))
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
