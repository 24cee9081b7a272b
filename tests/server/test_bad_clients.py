"""Clients that send what they must not, vanish, or do not read: their connection ends, no other."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wire
from older_client import GEMM, LINEAR, MAGIC, OlderClient

GOOD = {"op_id": 1, "M": 2, "N": 3, "K": 4, "A_shape": [2, 4], "B_shape": [4, 3]}


def described(**changes: Any) -> bytes:
    return wire.frame(GEMM, json.dumps({**GOOD, **changes}).encode())


BAD = {
    "magic": (wire.frame(0, magic=0xCAFEBABE), "magic: 0xCAFEBABE came, 0xDEADBEEF expected"),
    "op": (wire.frame(7), "op: 7 came"),
    "huge": (wire.frame(0, length=2**32 - 1), "payload length of op 0 GEMM: 4294967295 came"),
    "huge commands": (wire.frame(16, length=2**31), "payload length of op 16 COMMANDS: 2147483648"),
    "odd commands": (wire.frame(16, bytes(100)), "payload length of op 16 COMMANDS: 100 came"),
    "empty": (wire.frame(1), "payload length of op 1 LINEAR: 0 came"),
    "json": (wire.frame(0, b"{nonsense"), "JSON: "),
    "binary json": (wire.frame(0, bytes(range(256))), "JSON: "),
    "list": (wire.frame(0, b"[]"), r"JSON: \[\] came, an object with M, N and K expected"),
    "nested": (wire.frame(0, b'{"M":' * 10000), "JSON: "),
    "no M": (described(M=None), "M: null came"),
    "negative": (described(N=-3), "N: -3 came"),
    "enormous": (described(M=2**40), "M: 1099511627776 came"),
    "shape": (described(A_shape=[4, 2]), r"A_shape: \[4,2\] came, \[2,4\] by M, N and K expected"),
    "dtype": (described(dtype="float128"), 'dtype: "float128" came'),
    "bias": (described(bias_shape=[4]), r"bias_shape: \[4\] came, \[3\] by N expected"),
    "size": (described() + wire.sized(bytes(33)), "size of A: 33 bytes came, 32 by 2x4 @ 4x3"),
    "huge C": (
        described(M=30000, N=30000, K=1, A_shape=[30000, 1], B_shape=[1, 30000]),
        "size of C by M, N and K: 3600000000 bytes came",
    ),
}


def assert_serves(server: Any) -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    with OlderClient(server.port) as client:
        assert np.array_equal(client.gemm(a, a.T.copy()), a @ a.T)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_ends_its_connection_alone(cpu: Any, name: str) -> None:
    sent, message = BAD[name]
    with OlderClient(cpu.port) as other, OlderClient(cpu.port) as client:
        client.socket.sendall(sent)
        assert wire.closed(client)
        cpu.wait_for(rf"client 127.0.0.1:\d+: connection closed: {message}")
        a = np.ones((2, 2), np.float32)
        assert np.array_equal(other.gemm(a, a), a @ a)
        assert wire.status(other)["counters"]["errors"] == 1


def test_a_bad_frame_behind_good_ones(cpu: Any) -> None:
    a = np.ones((2, 2), np.float32)
    with OlderClient(cpu.port) as client:
        assert np.array_equal(client.gemm(a, a), a @ a)
        client.socket.sendall(b"nonsense nonsense")
        assert wire.closed(client)
    assert_serves(cpu)


def test_every_place_where_a_stream_can_end(cpu: Any) -> None:
    whole = described() + wire.sized(bytes(32)) + wire.sized(bytes(48))
    for length in range(1, len(whole), 7):
        with OlderClient(cpu.port) as client:
            client.socket.sendall(whole[:length])
            client.socket.shutdown(socket.SHUT_WR)
            assert wire.closed(client)
    cpu.wait_for(r"the connection ended within a frame: 3 of 32 bytes of A came|of 32 bytes of A")
    assert_serves(cpu)


def test_a_client_that_resets_mid_frame(cpu: Any) -> None:
    for _ in range(20):
        client = OlderClient(cpu.port)
        client.socket.sendall(described() + struct.pack(">I", 32) + b"half")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert_serves(cpu)


def test_a_client_that_leaves_while_it_is_served(cpu: Any) -> None:
    a = np.ones((300, 300), np.float32)
    for _ in range(10):
        client = OlderClient(cpu.port)
        client.send(GEMM, a, a)
        client.close()
    assert_serves(cpu)


def test_one_that_ends_its_side_still_gets_its_answers(cpu: Any) -> None:
    a = np.arange(20, dtype=np.float32).reshape(4, 5)
    with OlderClient(cpu.port) as client:
        for _ in range(5):
            client.send(LINEAR, a, a.T.copy())
        client.socket.shutdown(socket.SHUT_WR)
        for _ in range(5):
            assert np.array_equal(client.receive(a, a.T), a @ a.T)
        assert wire.closed(client)


def test_a_slow_reader_is_not_read_and_holds_up_nobody(cpu: Any) -> None:
    a, b = np.ones((1000, 1), np.float32), np.ones((1, 1000), np.float32)  # 4 MB of C each
    slow = OlderClient(cpu.port)
    sent = 0

    def flood() -> None:
        nonlocal sent
        for _ in range(200):
            slow.send(GEMM, a, b)
            sent += 1

    sender = threading.Thread(target=flood)
    sender.start()
    for _ in range(20):
        assert_serves(cpu)
    memory = resident_bytes(cpu.process.pid)
    assert memory < 400 << 20, f"{memory >> 20} MiB for a client that does not read"
    for _ in range(200):
        assert np.array_equal(slow.receive(a, b), a @ b)
    sender.join(60)
    assert sent == 200
    slow.close()


def test_slow_senders_hold_little_memory(cpu: Any) -> None:
    before = resident_bytes(cpu.process.pid)
    clients = [OlderClient(cpu.port) for _ in range(40)]
    size = 4 * 3000 * 1000  # 12 MB each are announced
    text = json.dumps({"M": 3000, "N": 1, "K": 1000}).encode()
    for client in clients:
        client.socket.sendall(wire.frame(GEMM, text) + struct.pack(">I", size) + bytes(1000))
    assert_serves(cpu)
    assert resident_bytes(cpu.process.pid) - before < 64 << 20
    for client in clients:
        client.close()
    assert_serves(cpu)


def test_bytes_that_trickle(cpu: Any) -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    with OlderClient(cpu.port) as client:
        text = json.dumps({"M": 2, "N": 2, "K": 3}).encode()
        whole = wire.frame(GEMM, text) + wire.sized(a.tobytes()) + wire.sized(a.T.tobytes())
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in whole:
            client.socket.sendall(bytes([byte]))
        assert np.array_equal(client.receive(a, a.T), a @ a.T)


def test_connections_are_not_leaked(cpu: Any) -> None:
    files = Path(f"/proc/{cpu.process.pid}/fd")
    before = len(list(files.iterdir()))
    for i in range(100):
        client = OlderClient(cpu.port)
        if i % 2:
            client.socket.sendall(struct.pack(">II", MAGIC, 99))
        client.close()
    deadline = time.monotonic() + 60
    while len(list(files.iterdir())) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(files.iterdir())) <= before


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) << 10
