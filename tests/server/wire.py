"""Frames of the wire protocol as a test wants them, right or wrong, and the status of a server."""

from __future__ import annotations

import ctypes
import json
import struct
from typing import Any

from older_client import MAGIC, OlderClient

from shmgemm import abi

COMMANDS, STATUS = 16, 17


def frame(op: int, payload: bytes = b"", *, magic: int = MAGIC, length: int | None = None) -> bytes:
    return struct.pack(">IIB", magic, len(payload) if length is None else length, op) + payload


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def block(client: OlderClient) -> bytes:
    (size,) = struct.unpack(">I", client.receive_exactly(4))
    return client.receive_exactly(size)


def status(client: OlderClient) -> dict[str, Any]:
    client.socket.sendall(frame(STATUS))
    answer: dict[str, Any] = json.loads(block(client))
    return answer


def commands(*records: Any) -> bytes:
    return frame(COMMANDS, b"".join(bytes(record) for record in records))


def completions(client: OlderClient, count: int) -> list[Any]:
    """As many completions as asked for, whatever blocks they come in."""
    found: list[Any] = []
    size = ctypes.sizeof(abi.Completion)
    while len(found) < count:
        data = block(client)
        assert len(data) >= size and len(data) % size == 0
        found += [abi.Completion.from_buffer_copy(data, at) for at in range(0, len(data), size)]
    assert len(found) == count
    return found


def closed(client: OlderClient) -> bool:
    """Has the server hung up, without having sent anything?"""
    try:
        return client.socket.recv(1) == b""
    except ConnectionResetError:
        return True
