"""The engine's side of shmgemm_link.h, driven step by step by a test; and the records, packed."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 60.0
MAGIC = 0x314B4E4C4D485353
HELLO, COMMANDS, COMPLETIONS, REQUEST, RESPONSE, FAILED = range(1, 7)
ENGINE, QEMU = 1, 2
OK, NO_DEVICE = 0, 5
COMMAND_BYTES, COMPLETION_BYTES, REQUEST_BYTES, RESPONSE_BYTES = 128, 64, 4104, 4112
HEAD = struct.Struct("<II")
HELLO_RECORD = struct.Struct("<QHHIIIIIQQQQ")


def command(number: int, op: int = 0, device: int = 0, generation: int = 7) -> bytes:
    return struct.pack("<QIBBBB", number, generation, op, 0, 0, device).ljust(
        COMMAND_BYTES, b"\x5a"
    )


def completion(number: int, status: int = OK, end_cycles: int = 0) -> bytes:
    packed = struct.pack("<QIHHQQ", number, 7, status, 0, 0, end_cycles)
    return packed.ljust(COMPLETION_BYTES, b"\0")


def request(number: int, kind: int = 0, user: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("<IIQQ", kind, 0, number, user) + payload.ljust(4080, b"\0")


def response(number: int, status: int = OK, user: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack("<IIQQQ", status, 0, number, user, 0) + payload.ljust(4080, b"\0")


def hello(**changes: int) -> bytes:
    values = {
        "magic": MAGIC,
        "abi_major": 1,
        "abi_minor": 0,
        "role": ENGINE,
        "index": 0,
        "devices": 2,
        "generation": 7,
        "reserved": 0,
        "region_bytes": 1 << 28,
        "region_id0": 11,
        "region_id1": 12,
        "clock_hz": 940_000_000,
    }
    assert changes.keys() <= values.keys()
    return HELLO_RECORD.pack(*(values | changes).values())


def frame(kind: int, content: bytes) -> bytes:
    return HEAD.pack(kind, len(content)) + content


class Engine:
    """Listens where a device expects its engine. `accept()` takes the device's connection."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(TIMEOUT_S)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self.connection: socket.socket | None = None
        self.received = self.sent = 0

    def close(self) -> None:
        self.hang_up()
        self._listener.close()

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def accept(self, **changes: int) -> dict[str, int]:
        """Takes the next connection, exchanges HELLOs; the device's."""
        self.hang_up()
        self.connection, _ = self._listener.accept()
        self.connection.settimeout(TIMEOUT_S)
        self.received = self.sent = 0
        kind, content = self.receive()
        assert kind == HELLO
        self.send(HELLO, hello(**changes))
        names = ("magic", "abi_major", "abi_minor", "role", "index", "devices", "generation")
        return dict(zip(names, HELLO_RECORD.unpack(content), strict=False))

    def receive(self) -> tuple[int, bytes]:
        """The next frame."""
        kind, size = HEAD.unpack(self._take(HEAD.size))
        return kind, self._take(size)

    def commands(self, count: int) -> list[bytes]:
        """The next `count` commands, from however many frames."""
        found: list[bytes] = []
        while len(found) < count:
            kind, content = self.receive()
            assert kind == COMMANDS and content and len(content) % COMMAND_BYTES == 0
            found += [content[at : at + 128] for at in range(0, len(content), 128)]
        assert len(found) == count
        return found

    def request(self) -> bytes:
        kind, content = self.receive()
        assert kind == REQUEST and len(content) == REQUEST_BYTES
        return content

    def _take(self, size: int) -> bytes:
        assert self.connection is not None
        content = b""
        while len(content) < size:
            more = self.connection.recv(size - len(content))
            assert more, "the device hung up"
            content += more
        self.received += size
        return content

    def send(self, kind: int, content: bytes) -> None:
        self.send_raw(frame(kind, content))

    def send_raw(self, content: bytes) -> None:
        assert self.connection is not None
        self.connection.sendall(content)
        self.sent += len(content)

    def complete(self, numbers: Sequence[int]) -> None:
        self.send(COMPLETIONS, b"".join(completion(number) for number in numbers))

    def hung_up_on(self) -> None:
        """Reads until the device hangs up; what it had to say is in `last_words`."""
        assert self.connection is not None
        content = b""
        try:
            while more := self.connection.recv(65536):
                content += more
        except ConnectionResetError:
            pass
        self.last_words = content
