"""What a device server and all behind it have counted: STATUS, read twice, and the difference.

Only the path's own counters can tell how long a command stayed where, and that no matrix travelled.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

_MAGIC, _STATUS = 0xDEADBEEF, 17
_HEADER = struct.Struct(">IIB")
_SIZE = struct.Struct(">I")
_LINK_HEAD_BYTES = 8
_COMMAND_BYTES, _COMPLETION_BYTES = 128, 64
_DEADLINE_S = 10.0


@dataclass(frozen=True)
class Status:
    """One answer, and the bytes that it took, which the server counts after it."""

    told: dict[str, Any]
    answer_bytes: int


class Connection:
    """To a device server, for STATUS alone. Also a context manager, which closes it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _DEADLINE_S)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def ask(self) -> Status:
        self._socket.sendall(_HEADER.pack(_MAGIC, 0, _STATUS))
        (size,) = _SIZE.unpack(self._take(_SIZE.size))
        return Status(json.loads(self._take(size)), _SIZE.size + size)

    def _take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            more = self._socket.recv(size - len(taken))
            if not more:
                raise ConnectionError("the device server hung up within STATUS")
            taken += more
        return taken


@dataclass(frozen=True)
class Difference:
    """Between two answers on one connection, with nobody else at the server meanwhile."""

    before: Status
    after: Status

    def count(self, part: str, name: str) -> int:
        return int(self.after.told[part][name] - self.before.told[part][name])

    def mean_us(self, part: str, sojourn: str, count: str) -> float:
        return self.count(part, sojourn) / self.count(part, count) / 1e3

    def bytes_beyond_records(self) -> int:
        """What crossed TCP and the link that is neither a record nor its head.

        One command a frame and one completion a block: that is what depth 1 sends.
        """
        commands = self.count("counters", "commands")
        on_tcp = self.count("counters", "bytes_in") + self.count("counters", "bytes_out")
        on_tcp -= _HEADER.size + self.before.answer_bytes  # the two questions' own
        on_tcp -= commands * (_HEADER.size + _COMMAND_BYTES + _SIZE.size + _COMPLETION_BYTES)
        on_link = self.count("info", "link_bytes_in") + self.count("info", "link_bytes_out")
        records = _COMMAND_BYTES + _COMPLETION_BYTES + 2 * _LINK_HEAD_BYTES
        return on_tcp + on_link - self.count("info", "link_commands") * records


def hops_us(difference: Difference, whole_us: float, client_cpu_us: float) -> dict[str, float]:
    """Microseconds of one command at each hop without those behind it; they add up to the whole.

    Each party counts how long commands stay with it and all behind it, so a hop is a difference of
    two means. What lies before the server is split by the CPU time of the client's process.
    """
    server = difference.mean_us("counters", "sojourn_ns", "completions")
    driver = difference.mean_us("driver", "sojourn_ns", "completions")
    device = difference.mean_us("virtio_device", "sojourn_ns", "completed")
    engine = difference.mean_us("info", "link_sojourn_ns", "link_commands")
    return {
        "host": client_cpu_us,
        "tcp": whole_us - client_cpu_us - server,
        "server": server - driver,
        "driver": driver - device,
        "device": device - engine,
        "engine": engine,
    }
