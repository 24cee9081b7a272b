"""A client of /dev/sst0 by the older fixed records: NOOP, ECHO, COMPUTE and GET_INFO.

It needs nothing but Python, so that this one file can be copied into a guest. As a program it tests
the device: `python -m shmgemm.virtio_sst [DEVICE]`, or `python3 virtio_sst.py [DEVICE]`.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import sys
import time
from enum import IntEnum
from types import TracebackType
from typing import TypedDict

DEVICE = "/dev/sst0"
PAYLOAD_BYTES = 4080
_REQUEST = struct.Struct("<IIQQ")  # type, flags, id, user; then the payload
_RESPONSE = struct.Struct("<IIQQQ")  # status, reserved, id, user, result; then the payload
REQUEST_BYTES = _REQUEST.size + PAYLOAD_BYTES
RESPONSE_BYTES = _RESPONSE.size + PAYLOAD_BYTES
_ADVICE = {
    errno.ENOENT: "is the module virtio-sst loaded, and the device there?",
    errno.EACCES: "run as root",
    errno.ENODEV: "the driver has no device",
    errno.ENXIO: "the driver has no device",
}


class SSTRequestType(IntEnum):
    NOOP = 0
    ECHO = 1
    COMPUTE = 2
    READ = 3
    WRITE = 4
    RESET = 5
    GET_INFO = 6
    CONFIGURE = 7


class SSTStatus(IntEnum):
    OK = 0
    ERROR = 1
    BUSY = 2
    INVALID = 3
    TIMEOUT = 4
    NO_DEVICE = 5


class ComputeResult(TypedDict):
    """`cycles` it took, `timestamp` the simulated time at its end; 0 where status is not OK."""

    status: SSTStatus
    cycles: int
    timestamp: int


class DeviceInfo(TypedDict):
    """`version` is major << 16 | minor; bit t of `capabilities`: request type t is served."""

    version: int
    capabilities: int
    max_compute_units: int
    memory_size: int


class VirtIOSST:
    """The device behind one open file: `with VirtIOSST() as device: device.ping()`.

    `timeout` seconds bound each call; TimeoutError after that.
    """

    def __init__(self, device: str = DEVICE, timeout: float = 60.0) -> None:
        self.device = device
        self.timeout = timeout
        self._fd = -1
        self._last_id = 0

    def open(self) -> None:
        """OSError where the device cannot be opened; opening twice is no error."""
        if self._fd >= 0:
            return
        try:
            self._fd = os.open(self.device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0)
            text = os.strerror(error.errno or 0) + (f" ({advice})" if advice else "")
            raise OSError(error.errno, text, self.device) from None

    def close(self) -> None:
        """Closing twice is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> VirtIOSST:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ping(self) -> bool:
        """Does an engine answer?"""
        status, _ = self.request(SSTRequestType.NOOP)
        return status == SSTStatus.OK

    def echo(self, data: bytes | str) -> bytes:
        """`data` (at most 4080 bytes) to the engine and back.

        Raises:
            OSError: the status was not OK.
        """
        sent = data.encode() if isinstance(data, str) else bytes(data)
        status, payload = self.request(SSTRequestType.ECHO, sent)
        self._check(status, "echo")
        return payload[: len(sent)]

    def compute(self, compute_units: int = 100000, latency_model: int = 0) -> ComputeResult:
        """What `compute_units` FLOPs take on the simulated device."""
        asked = struct.pack("<QII", compute_units, latency_model, 0)
        status, payload = self.request(SSTRequestType.COMPUTE, asked)
        cycles, timestamp = struct.unpack_from("<QQ", payload) if status == SSTStatus.OK else (0, 0)
        return {"status": status, "cycles": cycles, "timestamp": timestamp}

    def get_info(self) -> DeviceInfo:
        """What the engine says of itself.

        Raises:
            OSError: the status was not OK.
        """
        status, payload = self.request(SSTRequestType.GET_INFO)
        self._check(status, "get_info")
        version, capabilities, max_units, memory = struct.unpack_from("<IIQQ", payload)
        return {
            "version": version,
            "capabilities": capabilities,
            "max_compute_units": max_units,
            "memory_size": memory,
        }

    def request(self, kind: SSTRequestType, payload: bytes = b"") -> tuple[SSTStatus, bytes]:
        """One record and its answer: the status and its 4080 bytes of payload."""
        if self._fd < 0:
            raise ValueError(f"{self.device} is not open: call open() first")
        if len(payload) > PAYLOAD_BYTES:
            raise ValueError(f"payload of {len(payload)} bytes: at most {PAYLOAD_BYTES} expected")
        self._last_id += 1
        deadline = time.monotonic() + self.timeout
        record = _REQUEST.pack(kind, 0, self._last_id, 0) + payload.ljust(PAYLOAD_BYTES, b"\0")
        self._write(record, deadline)
        while True:
            answer = self._read(deadline)
            status, _, identity, _, _ = _RESPONSE.unpack_from(answer)
            if identity == self._last_id:
                return SSTStatus(status), answer[_RESPONSE.size :]
            if identity > self._last_id:  # an earlier one is of a request that timed out
                raise OSError(errno.EPROTO, f"answer to request {identity}, {self._last_id} sent")

    def _write(self, record: bytes, deadline: float) -> None:
        while True:
            try:
                count = os.write(self._fd, record)
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
                continue
            if count != len(record):
                raise OSError(errno.EIO, f"{count} of {len(record)} bytes were taken", self.device)
            return

    def _read(self, deadline: float) -> bytes:
        while True:
            try:
                answer = os.read(self._fd, RESPONSE_BYTES)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            if len(answer) != RESPONSE_BYTES:
                text = f"an answer of {len(answer)} bytes, {RESPONSE_BYTES} expected"
                raise OSError(errno.EPROTO, text, self.device)
            return answer

    def _wait(self, events: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._fd, events)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError(f"{self.device} did not answer within {self.timeout:g} s")

    def _check(self, status: SSTStatus, call: str) -> None:
        if status != SSTStatus.OK:
            raise OSError(errno.EIO, f"{call}: status {status.name}", self.device)


def self_test(device: str = DEVICE) -> bool:
    """Tries each call, says how it went, and whether all went well."""
    text = bytes(range(256)) * 15 + b"the end"
    with VirtIOSST(device) as sst:
        results = [("ping", sst.ping(), "")]
        echoed = sst.echo(text) == text
        results.append(("echo", echoed, f"{len(text)} bytes"))
        done = sst.compute()
        worked = done["status"] == SSTStatus.OK and done["cycles"] > 0
        results.append(("compute", worked, f"100000 units: {done['cycles']} cycles"))
        unknown = sst.compute(1000, latency_model=99)["status"]
        refused = unknown == SSTStatus.INVALID
        results.append(("compute, unknown latency model", refused, unknown.name))
        info = sst.get_info()
        results.append(("get_info", info["version"] > 0, str(info)))
    for name, ok, detail in results:
        print(f"{'ok    ' if ok else 'FAILED'} {name}{': ' + detail if detail else ''}")
    return all(ok for _, ok, _ in results)


if __name__ == "__main__":
    try:
        sys.exit(0 if self_test(*sys.argv[1:2]) else 1)
    except OSError as problem:
        print(f"virtio_sst: {problem}", file=sys.stderr)
        sys.exit(1)
