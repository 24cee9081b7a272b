"""A client of the older wire protocol: ops 0 GEMM and 1 LINEAR.

It knows nothing of shmgemm, so that it stands for programs written before it. Fields and sizes are
those of the protocol's description. The description leaves the framing open; that the header's
payload is the JSON alone, and that the matrices follow outside of it, was settled by reading the
protocol's public predecessor.
"""

from __future__ import annotations

import json
import socket
import struct
from types import TracebackType
from typing import Any

import numpy as np

MAGIC = 0xDEADBEEF
GEMM, LINEAR = 0, 1


class OlderClient:
    """`gemm(A, B)` and `linear(A, B, bias)` over one TCP connection."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 60.0) -> None:
        self.socket = socket.create_connection((host, port), timeout)
        self._op_id = 0

    def gemm(self, a: Any, b: Any) -> Any:
        self.send(GEMM, a, b)
        return self.receive(a, b)

    def linear(self, a: Any, b: Any, bias: Any = None) -> Any:
        self.send(LINEAR, a, b, bias)
        return self.receive(a, b)

    def send(self, op: int, a: Any, b: Any, bias: Any = None) -> None:
        self._op_id += 1
        description = {
            "op_id": self._op_id,
            "M": a.shape[0],
            "N": b.shape[1],
            "K": a.shape[1],
            "A_shape": list(a.shape),
            "B_shape": list(b.shape),
            "dtype": str(a.dtype),
        }
        if bias is not None:
            description["bias_shape"] = list(bias.shape)
        payload = json.dumps(description).encode("utf-8")
        self.socket.sendall(struct.pack(">IIB", MAGIC, len(payload), op) + payload)
        for matrix in (a, b) if bias is None else (a, b, bias):
            data = matrix.tobytes()
            self.socket.sendall(struct.pack(">I", len(data)))
            self.socket.sendall(data)

    def receive(self, a: Any, b: Any) -> Any:
        (size,) = struct.unpack(">I", self.receive_exactly(4))
        dtype = np.dtype(np.int32) if a.dtype == np.int8 else a.dtype
        return np.frombuffer(self.receive_exactly(size), dtype).reshape(a.shape[0], b.shape[1])

    def receive_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = self.socket.recv(min(count - len(data), 1 << 20))
            if not chunk:
                raise ConnectionError(f"the server hung up: {len(data)} of {count} bytes came")
            data += chunk
        return bytes(data)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> OlderClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
