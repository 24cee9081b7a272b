"""The host's side of the guest's agent (guest/agent/agent.c): commands and shells in the guest."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator, Sequence

from ..errors import DeviceLost, DeviceTimeout, ProtocolError

GUEST_PORT = 9998
TOKEN_BYTES = 32
_OPENING = struct.Struct("<32sIHHI")
_HEAD = struct.Struct("<II")
_INPUT, _OUTPUT, _STATUS, _SIZE = 1, 2, 3, 4
_MAX_WORDS_BYTES = 65536
_PIECE_BYTES = 32768


class Call:
    """One command in the guest: its connection. `pieces()` yields output, then `status` is set."""

    def __init__(
        self,
        port: int,
        token: str,
        words: Sequence[str],
        timeout_s: float | None,
        terminal: tuple[int, int] | None = None,
    ) -> None:
        packed = b"".join(word.encode() + b"\0" for word in words)
        if not words or len(packed) > _MAX_WORDS_BYTES:
            raise ValueError(f"a command of {len(packed)} bytes: 1 to {_MAX_WORDS_BYTES} fit")
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._words = words
        self._buffer = b""
        self._sending = threading.Lock()
        self.status: int | None = None
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), self._left())
        except OSError as error:
            raise DeviceLost(f"guest agent on port {port}: {error}") from None
        rows, columns = terminal or (0, 0)
        opening = (token.encode(), int(terminal is not None), rows, columns, len(packed))
        self._socket.sendall(_OPENING.pack(*opening) + packed)

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, content: bytes) -> None:
        """Bytes for the command's input; none: it has ended."""
        self._frame(_INPUT, content)

    def resize(self, rows: int, columns: int) -> None:
        self._frame(_SIZE, struct.pack("<HH", rows, columns))

    def _frame(self, kind: int, content: bytes) -> None:
        with self._sending, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(_HEAD.pack(kind, len(content)) + content)

    def pieces(self) -> Iterator[bytes]:
        """What the command writes, as it comes, up to its end."""
        while (piece := self.piece()) is not None:
            yield piece

    def piece(self) -> bytes | None:
        """The next output; None at the command's end, when `status` is known."""
        kind, size = _HEAD.unpack(self._take(_HEAD.size))
        if kind not in (_OUTPUT, _STATUS) or size > _MAX_WORDS_BYTES:
            raise ProtocolError(f"guest agent: a frame of kind {kind} with {size} bytes")
        content = self._take(size)
        if kind == _OUTPUT:
            return content
        (self.status,) = struct.unpack("<I", content)
        return None

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                self._socket.settimeout(self._left())
                more = self._socket.recv(_PIECE_BYTES)
            except TimeoutError:
                raise self._late() from None
            except OSError as error:
                raise DeviceLost(f"guest agent: {error}") from None
            if not more:
                raise DeviceLost(
                    f"the guest's agent hung up before {self._words[0]!r} ended: the guest is"
                    f" going down, has no agent, or the token is wrong"
                )
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _left(self) -> float | None:
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> DeviceTimeout:
        return DeviceTimeout(f"in the guest, {' '.join(self._words)!r} did not end in time")


def run(
    port: int, token: str, words: Sequence[str], timeout_s: float, content: bytes = b""
) -> tuple[int, str]:
    """Exit status and output (both streams) of a command whose input is `content`."""
    with Call(port, token, words, timeout_s) as call:

        def feed() -> None:
            with contextlib.suppress(OSError):  # a command may end before it has read everything
                for at in range(0, len(content), _PIECE_BYTES):
                    call.send(content[at : at + _PIECE_BYTES])
                call.send(b"")

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        output = b"".join(call.pieces())
        assert call.status is not None
        return call.status, output.decode(errors="replace")


def stream(port: int, token: str, words: Sequence[str]) -> int:
    """Run a command with this process's input and output; its exit status."""
    terminal = sys.stdin is None or sys.stdin.closed or sys.stdin.isatty()
    with Call(port, token, words, None) as call:
        if terminal:
            call.send(b"")
        else:
            threading.Thread(target=_feed_stdin, args=(call,), daemon=True).start()
        for piece in call.pieces():
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        assert call.status is not None
        return call.status


def _feed_stdin(call: Call) -> None:
    with contextlib.suppress(OSError):
        while content := os.read(0, _PIECE_BYTES):
            call.send(content)
        call.send(b"")


def shell(port: int, token: str) -> int:
    """A shell on this process's terminal; its exit status."""
    if not sys.stdin.isatty():
        return stream(port, token, ["sh"])
    columns, rows = shutil.get_terminal_size()
    with Call(port, token, ["sh", "-l"], None, (rows, columns)) as call, _raw_terminal():

        def resized(*_: object) -> None:
            columns, rows = shutil.get_terminal_size()
            call.resize(rows, columns)

        signal.signal(signal.SIGWINCH, resized)
        while True:
            ready, _, _ = select.select([call.fileno(), 0], [], [])
            if 0 in ready:
                call.send(os.read(0, _PIECE_BYTES))
            if call.fileno() in ready:
                piece = call.piece()
                if piece is None:
                    assert call.status is not None
                    return call.status
                os.write(1, piece)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
