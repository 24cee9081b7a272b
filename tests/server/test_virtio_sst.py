"""The pure-Python client of /dev/sst0, against a device of the test's own behind a socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shmgemm import virtio_sst
from shmgemm.virtio_sst import SSTRequestType, SSTStatus, VirtIOSST

REQUEST_BYTES, RESPONSE_BYTES = 4104, 4112
Answer = Callable[[int, bytes], tuple[int, bytes]]


class Double:
    """Records go over a socket that keeps their borders, as the device file does."""

    def __init__(self) -> None:
        self.client_end, self._end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.answer: Answer = honest
        self.stale = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has closed, and awaits nothing
            self._answer_all()

    def _answer_all(self) -> None:
        while len(record := self._end.recv(8192)) == REQUEST_BYTES:
            kind, _, identity, user = struct.unpack_from("<IIQQ", record)
            status, payload = self.answer(kind, record[24:])
            head = struct.pack("<IIQQQ", status, 0, identity, user, 0)
            if self.stale:
                old = struct.pack("<IIQQQ", status, 0, identity - 1, user, 0)
                self._end.send(old + bytes(4080))
            self._end.send(head + payload.ljust(4080, b"\0"))

    def close(self) -> None:
        self.client_end.close()
        self._end.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._end.close()


def honest(kind: int, payload: bytes) -> tuple[int, bytes]:
    if kind == 2:
        units, model = struct.unpack_from("<QI", payload)
        return (0, struct.pack("<QQ", 7 + units // 8, 1000)) if model == 0 else (3, b"")
    if kind == 6:
        return 0, struct.pack("<IIQQ", 1 << 16, 0xFF, 1 << 40, 1 << 26)
    return 0, payload if kind == 1 else b""


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    made = Double()
    opened: Callable[..., int] = os.open

    def open_double(path: str, flags: int, *rest: int) -> int:
        if path != "/dev/sst0":
            return opened(path, flags, *rest)
        descriptor = os.dup(made.client_end.fileno())
        os.set_blocking(descriptor, False)
        return descriptor

    monkeypatch.setattr(os, "open", open_double)
    yield made
    made.close()


def test_calls(double: Double) -> None:
    device = VirtIOSST()
    device.open()
    device.open()
    assert device.ping()
    assert device.echo(b"abc\0def") == b"abc\0def"
    assert device.echo("Grüße") == "Grüße".encode()
    assert device.compute() == {"status": SSTStatus.OK, "cycles": 12507, "timestamp": 1000}
    assert device.compute(80, 1) == {"status": SSTStatus.INVALID, "cycles": 0, "timestamp": 0}
    assert device.get_info() == {
        "version": 0x10000,
        "capabilities": 0xFF,
        "max_compute_units": 1 << 40,
        "memory_size": 1 << 26,
    }
    device.close()
    device.close()
    with pytest.raises(ValueError, match="not open"):
        device.ping()


def test_no_engine(double: Double) -> None:
    double.answer = lambda kind, payload: (5, b"")
    with VirtIOSST() as device:
        assert not device.ping()
        assert device.compute()["status"] == SSTStatus.NO_DEVICE
        with pytest.raises(OSError, match="echo: status NO_DEVICE"):
            device.echo(b"x")


def test_an_answer_to_an_earlier_request_is_passed_over(double: Double) -> None:
    double.stale = True
    with VirtIOSST() as device:
        assert device.echo(b"new") == b"new"


def test_a_device_that_does_not_answer(double: Double) -> None:
    release = threading.Event()

    def late(kind: int, payload: bytes) -> tuple[int, bytes]:
        release.wait(60)
        return 0, payload

    double.answer = late
    with VirtIOSST(timeout=0.05) as device, pytest.raises(TimeoutError, match="did not answer"):
        device.ping()
    release.set()


def test_too_long(double: Double) -> None:
    with VirtIOSST() as device, pytest.raises(ValueError, match="at most 4080"):
        device.request(SSTRequestType.ECHO, bytes(4081))


def test_self_test(double: Double, capsys: pytest.CaptureFixture[str]) -> None:
    assert virtio_sst.self_test()
    assert capsys.readouterr().out.count("ok ") == 5
    double.answer = lambda kind, payload: honest(0 if kind == 1 else kind, payload)
    assert not virtio_sst.self_test()
    assert "FAILED echo" in capsys.readouterr().out


def test_no_device() -> None:
    with pytest.raises(OSError, match="is the module virtio-sst loaded") as caught:
        VirtIOSST("/dev/no-such-sst0").open()
    assert caught.value.errno == errno.ENOENT


def test_as_a_file_of_its_own(tmp_path: Path) -> None:
    alone = tmp_path / "virtio_sst.py"
    alone.write_bytes(Path(virtio_sst.__file__).read_bytes())
    for words in ([str(alone)], ["-m", "shmgemm.virtio_sst"]):
        done = subprocess.run(
            [sys.executable, *words, "/dev/no-such-sst0"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert done.returncode == 1 and "No such file or directory" in done.stderr


def test_it_brings_no_torch() -> None:
    code = "import sys, shmgemm.virtio_sst; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
