"""A link's other end for tests: frames over a Unix socket, engines started by hand."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import pytest

from shmgemm import _core, abi, hardware, sst
from shmgemm import abi_link as link
from shmgemm.engine import default_engine_path

DEADLINE_S = 30.0
ENGINES = ["embedded", "sst"]
GUEST_ARENA_BYTES = 8 << 20
Record = TypeVar("Record", bound=ctypes.Structure)


class LinkFailed(Exception):
    """The engine said FAILED."""


class LinkClosed(Exception):
    """The engine hung up."""


def frame(kind: int, content: bytes) -> bytes:
    return bytes(link.LinkHead(kind=kind, bytes=len(content))) + content


def hello(**changes: int) -> bytes:
    fields = {
        "magic": link.LINK_MAGIC,
        "abi_major": abi.ABI_MAJOR,
        "abi_minor": abi.ABI_MINOR,
        "role": link.LinkRole.SERVER,
    }
    return frame(link.LinkKind.HELLO, bytes(link.LinkHello(**{**fields, **changes})))


class LinkClient:
    """Greets unless told not to; `engine` is the engine's HELLO."""

    def __init__(self, path: str | Path, greet: bool = True, **changes: int) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))
        self.completions: dict[int, abi.Completion] = {}
        self.responses: dict[int, link.Response] = {}
        self.order: list[int] = []
        self.bytes_sent = self.bytes_received = 0
        if greet:
            self.send(hello(**changes))
        kind, content = self.receive()
        assert kind == link.LinkKind.HELLO
        self.engine = link.LinkHello.from_buffer_copy(content)

    def __enter__(self) -> LinkClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)
        self.bytes_sent += len(data)

    def _take(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise LinkClosed
            data += piece
        self.bytes_received += count
        return bytes(data)

    def receive(self) -> tuple[int, bytes]:
        head = link.LinkHead.from_buffer_copy(self._take(8))
        content = self._take(head.bytes)
        if head.kind == link.LinkKind.FAILED:
            raise LinkFailed(content.decode())
        return head.kind, content

    def failure(self) -> str:
        """What FAILED says; the engine then hangs up."""
        try:
            while True:
                self.collect()
        except LinkFailed as failed:
            try:
                self.receive()
            except LinkClosed:
                return str(failed)
            raise AssertionError("the engine did not hang up after FAILED") from None

    def command(self, op: abi.Op, id: int, **fields: int) -> abi.Command:
        args = fields.pop("args", ())
        command = abi.Command(op=op, id=id, generation=self.engine.generation, **fields)
        for i, value in enumerate(args):  # type: ignore[arg-type]
            command.arg[i] = value
        return command

    def submit(self, *commands: abi.Command) -> None:
        self.send(frame(link.LinkKind.COMMANDS, b"".join(map(bytes, commands))))

    def request(self, type: int, id: int, payload: bytes = b"", user: int = 0) -> None:
        request = link.Request(type=type, id=id, user=user)
        ctypes.memmove(request.payload, payload, len(payload))
        self.send(frame(link.LinkKind.REQUEST, bytes(request)))

    def collect(self) -> None:
        """Takes one frame of answers."""
        kind, content = self.receive()
        if kind == link.LinkKind.RESPONSE:
            response = link.Response.from_buffer_copy(content)
            self.responses[response.id] = response
            self.order.append(response.id)
            return
        assert kind == link.LinkKind.COMPLETIONS
        assert len(content) % 64 == 0
        for at in range(0, len(content), 64):
            completion = abi.Completion.from_buffer_copy(content, at)
            assert completion.id not in self.completions, "answered twice"
            self.completions[completion.id] = completion
            self.order.append(completion.id)

    def wait(self, id: int) -> abi.Completion:
        while id not in self.completions:
            self.collect()
        return self.completions.pop(id)

    def respond(self, type: int, id: int, payload: bytes = b"", user: int = 0) -> link.Response:
        """One older request and its response."""
        self.request(type, id, payload, user)
        while id not in self.responses:
            self.collect()
        return self.responses.pop(id)

    def run(self, op: abi.Op, id: int, **fields: int) -> abi.Completion:
        """One flushed command and its completion."""
        self.submit(self.command(op, id, flags=abi.Flag.FLUSH, **fields))
        return self.wait(id)

    def quiet(self, seconds: float = 0.2) -> bool:
        """Nothing comes for a while."""
        return not select.select([self.socket], [], [], seconds)[0]


class Memory:
    """A mapped region, with what lies in its heap handed out from `begin` on."""

    def __init__(self, fd: int, begin: int | None = None) -> None:
        self.map = mmap.mmap(fd, 0)
        self.header = abi.Header.from_buffer_copy(self.map)
        self.at = begin or self.header.heap_offset

    def array(self, values: np.ndarray) -> tuple[np.ndarray, int]:
        """A copy of `values` in the heap, and its offset."""
        offset = -(-self.at // 64) * 64
        self.at = offset + values.nbytes
        there = np.frombuffer(self.map, values.dtype, values.size, offset).reshape(values.shape)
        there[...] = values
        return there, offset

    def block(self, count: int) -> int:
        return self.array(np.zeros(count, np.uint8))[1]


def product(
    client: LinkClient, id: int, a: int, b: int, c: int, m: int, n: int, k: int, **fields: int
) -> abi.Command:
    """A float32 GEMM of operands at these offsets."""
    command = client.command(
        abi.Op.GEMM,
        id,
        dtype_in=abi.Dtype.FLOAT32,
        dtype_out=abi.Dtype.FLOAT32,
        m=m,
        n=n,
        k=k,
        batch=1,
        lda=k,
        ldb=n,
        ldc=n,
        **fields,
    )
    command.a, command.b, command.c = a, b, c
    return command


@dataclass
class Linked:
    """A session whose engine takes links; the guest's arena is the tests' to use."""

    core: _core.Session
    path: Path
    described: hardware.Hardware
    memory: Memory

    def link(self, **changes: int) -> LinkClient:
        return LinkClient(self.path, **changes)


def words_for(engine: str) -> tuple[str, list[str]]:
    if engine == "embedded":
        return default_engine_path(), []
    if shutil.which("sst-config") is None:
        pytest.skip("needs sst-config")
    return sst.command()


class EngineByHand:
    """A process that serves a region file at a link until it is stopped."""

    def __init__(self, words: Sequence[str | Path], path: Path) -> None:
        self.path = path
        self.process = subprocess.Popen(
            list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        deadline = time.monotonic() + DEADLINE_S
        while not self.listens():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, "the engine does not listen"
            time.sleep(0.01)

    def listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self.path))
            except OSError:
                return False
            return True

    def output(self) -> str:
        return self.process.communicate(timeout=DEADLINE_S)[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(DEADLINE_S)
