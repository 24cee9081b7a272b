"""What a device server says of itself and of all behind it: STATUS of docs/protocol.md."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from ..errors import DeviceLost, DeviceTimeout, ProtocolError

_MAGIC = 0xDEADBEEF
_STATUS = 17
_MAX_BYTES = 1 << 20


def ask(port: int, timeout_s: float = 10.0) -> dict[str, Any]:
    """The answer of the server at this port of 127.0.0.1; `timeout_s` is for each step of it."""
    where = f"device server 127.0.0.1:{port}"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.sendall(struct.pack(">IIB", _MAGIC, 0, _STATUS))
            (size,) = struct.unpack(">I", _take(connection, 4, where))
            if size > _MAX_BYTES:
                raise ProtocolError(f"{where}: a status of {size} bytes, at most {_MAX_BYTES} fit")
            said = json.loads(_take(connection, size, where))
    except TimeoutError:
        raise DeviceTimeout(f"{where} did not answer in time") from None
    except OSError as error:
        raise DeviceLost(f"{where}: {error.strerror}") from None
    except ValueError as error:
        raise ProtocolError(f"{where}: a status that is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise ProtocolError(f"{where}: a status that is no JSON object")
    return said


def _take(connection: socket.socket, size: int, where: str) -> bytes:
    content = b""
    while len(content) < size:
        piece = connection.recv(size - len(content))
        if not piece:
            raise DeviceLost(f"{where}: the connection was closed by the server")
        content += piece
    return content
