"""An engine that misbehaves on request: the far side of a virtio-sst link, for the driver's stress.

It computes nothing. Commands and requests are answered OK at once, but for an ECHO, whose first
argument (in an older request: whose first payload word) says how it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
from collections import Counter
from pathlib import Path

PROMPT, NEVER, TWICE, LATE, UNKNOWN_ID, BAD_STATUS, OLD_GENERATION, HANG_UP = range(8)
LATE_S = 0.3

MAGIC_REGION = int.from_bytes(b"SHMGEMM1", "little")
MAGIC_LINK = int.from_bytes(b"SSHMLNK1", "little")
HELLO, COMMANDS, COMPLETIONS, REQUEST, RESPONSE, FAILED = range(1, 7)
ENGINE = 1
OP_ECHO = 1
GENERATION = 7
REGION_BYTES = 4 << 20
HEAP_OFFSET = 2 << 20
REGION_ID = (0x0123456789ABCDEF, 0xFEDCBA9876543210)

_HELLO = struct.Struct("<QHHIIIIIQQQQ")
_HEAD = struct.Struct("<II")
_COMMAND_HEAD = struct.Struct("<QIBBBB")
_ECHO = struct.Struct("<3Q")
_COMPLETION = struct.Struct("<QIHHQQQQQII")
_REQUEST_HEAD = struct.Struct("<IIQQ")
_RESPONSE_HEAD = struct.Struct("<IIQQQ")
COMMAND_BYTES, PAYLOAD_BYTES = 128, 4080


def make_region(path: Path) -> None:
    """A file with a valid header: one queue pair, and a heap of its upper half."""
    header = struct.pack(
        "<QHHIQQQIIQQQII",
        *(MAGIC_REGION, 1, 0, 1472, REGION_BYTES, *REGION_ID, GENERATION, 1, 4096),
        *(HEAP_OFFSET, REGION_BYTES - HEAP_OFFSET, 0, 0),
    )
    with path.open("wb") as file:
        file.write(header)
        os.posix_fallocate(file.fileno(), 0, REGION_BYTES)


class Link:
    """One connection of a QEMU device."""

    def __init__(self, writer: asyncio.StreamWriter, seen: Counter[str]) -> None:
        self.writer = writer
        self.seen = seen

    def frame(self, kind: int, content: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(_HEAD.pack(kind, len(content)) + content)

    def answer(self, kind: int, how: int, answer: bytes, spoilt: bytes) -> None:
        """`spoilt` is what goes out where `how` asks for a wrong answer; the right one follows."""
        if how == HANG_UP:
            self.writer.close()
        elif how == LATE:
            asyncio.get_running_loop().call_later(LATE_S, self.frame, kind, answer)
        elif how == TWICE:
            self.frame(kind, answer)
            self.frame(kind, answer)
        elif how == UNKNOWN_ID:
            self.frame(kind, spoilt)
            self.frame(kind, answer)
        elif how in (BAD_STATUS, OLD_GENERATION):
            self.frame(kind, spoilt)
        elif how != NEVER:
            self.frame(kind, answer)

    def command(self, record: bytes) -> None:
        self.seen["commands"] += 1
        number, generation, op, _, _, device = _COMMAND_HEAD.unpack_from(record)
        echo = _ECHO.unpack_from(record, 80) if op == OP_ECHO else (0, 0, 0)
        how = echo[0]
        answer = (number, generation, 0, device, 10, 20, *echo, 0, 0)
        spoilt = list(answer)
        if how == UNKNOWN_ID:
            spoilt[0] ^= 0x5A5A00
        elif how == BAD_STATUS:
            spoilt[2] = 999
        elif how == OLD_GENERATION:
            spoilt[1] -= 1
        self.answer(COMPLETIONS, how, _COMPLETION.pack(*answer), _COMPLETION.pack(*spoilt))

    def request(self, record: bytes) -> None:
        self.seen["requests"] += 1
        kind, _, number, user = _REQUEST_HEAD.unpack_from(record)
        payload = record[_REQUEST_HEAD.size :]
        how = int.from_bytes(payload[:4], "little") if kind == OP_ECHO else PROMPT
        spoilt_id = number ^ 0x5A5A00 if how == UNKNOWN_ID else number
        spoilt_status = 999 if how in (BAD_STATUS, OLD_GENERATION) else 0
        answer = _RESPONSE_HEAD.pack(0, 0, number, user, 0) + payload
        spoilt = _RESPONSE_HEAD.pack(spoilt_status, 0, spoilt_id, user, 0) + payload
        self.answer(RESPONSE, how, answer, spoilt)


async def _serve(reader: asyncio.StreamReader, link: Link) -> None:
    hello = (MAGIC_LINK, 1, 0, ENGINE, 0, 1, GENERATION, 0, REGION_BYTES, *REGION_ID, 940_000_000)
    link.frame(HELLO, _HELLO.pack(*hello))
    while True:
        kind, size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        content = await reader.readexactly(size)
        if kind == COMMANDS:
            for at in range(0, size, COMMAND_BYTES):
                link.command(content[at : at + COMMAND_BYTES])
        elif kind == REQUEST:
            link.request(content)
        elif kind == FAILED:
            print(f"the device says: {content.decode(errors='replace')}", file=sys.stderr)
        await link.writer.drain()


async def run(path: Path, seen: Counter[str]) -> None:
    """Serve QEMU devices at a Unix socket, until cancelled; counts what came in `seen`."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["connections"] += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await _serve(reader, Link(writer, seen))
        writer.close()

    async with await asyncio.start_unix_server(connected, path) as server:
        await server.serve_forever()


if __name__ == "__main__":
    make_region(Path(sys.argv[2]))
    asyncio.run(run(Path(sys.argv[1]), Counter()))
