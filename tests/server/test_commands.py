"""Op 16, the zero-copy path: commands through a real engine's link and back."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import wire
from older_client import OlderClient

from shmgemm import abi


def noop(identity: int, generation: int = 1) -> abi.Command:
    return abi.Command(
        id=identity, generation=generation, op=abi.Op.NOOP, flags=int(abi.Flag.FLUSH)
    )


def test_noops_one_by_one_and_many_at_once(serve: Callable[..., Any], engine: Any) -> None:
    server = serve(*engine.server_options)
    with OlderClient(server.port) as client:
        for identity in range(1, 20):
            client.socket.sendall(wire.commands(noop(identity)))
            (done,) = wire.completions(client, 1)
            assert (done.id, done.generation, done.status) == (identity, 1, abi.Status.OK)
        many = [noop(identity) for identity in range(1, 3001)]  # more than may be in flight
        client.socket.sendall(wire.commands(*many))
        found = wire.completions(client, 3000)
        assert sorted(done.id for done in found) == list(range(1, 3001))
        assert {done.status for done in found} == {abi.Status.OK}
        counters = wire.status(client)["counters"]
    assert counters["commands"] == counters["completions"] == 3019
    assert counters["matrix_bytes"] == 0 and counters["no_device"] == 0
    assert counters["sojourn_ns"] >= counters["device_ns"] > 0


def test_a_product_that_lies_in_the_region(serve: Callable[..., Any], engine: Any) -> None:
    server = serve(*engine.server_options)
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    b = np.ones((4, 5), np.float32) * 2
    with open(engine.region, "r+b") as file, mmap.mmap(file.fileno(), 0) as region:
        header = abi.Header.from_buffer_copy(region)
        free = next(arena for arena in header.arenas if arena.state == 0)
        places = [free.offset + 4096 * i for i in range(3)]
        for place, values in zip(places, (a, b), strict=False):
            region[place : place + values.nbytes] = values.tobytes()
        command = abi.Command(
            id=7,
            generation=1,
            op=abi.Op.GEMM,
            flags=int(abi.Flag.FLUSH),
            dtype_in=abi.Dtype.FLOAT32,
            dtype_out=abi.Dtype.FLOAT32,
            m=3,
            n=5,
            k=4,
            batch=1,
            lda=4,
            ldb=5,
            ldc=5,
        )
        command.a, command.b, command.c = places
        with OlderClient(server.port) as client:
            client.socket.sendall(wire.commands(command))
            (done,) = wire.completions(client, 1)
            assert done.status == abi.Status.OK and done.end_cycles > done.start_cycles
            counters = wire.status(client)["counters"]
        c = np.frombuffer(region[places[2] : places[2] + 60], np.float32).reshape(3, 5)
    assert np.array_equal(c, a @ b)
    assert counters["bytes_in"] == 9 + 128 + 9 and counters["bytes_out"] == 4 + 64


def test_what_the_engine_refuses_comes_back(serve: Callable[..., Any], engine: Any) -> None:
    server = serve(*engine.server_options)
    stale = noop(1, generation=99)
    unknown = noop(2)
    unknown.op = 77
    with OlderClient(server.port) as client:
        client.socket.sendall(wire.commands(stale, unknown, noop(3)))
        statuses = {done.id: done.status for done in wire.completions(client, 3)}
    assert statuses == {1: abi.Status.BAD_GENERATION, 2: abi.Status.BAD_OP, 3: abi.Status.OK}


def test_ids_belong_to_a_connection(serve: Callable[..., Any], engine: Any) -> None:
    server = serve(*engine.server_options)
    wrong: list[str] = []

    def work() -> None:
        try:
            with OlderClient(server.port) as client:
                for _ in range(20):
                    client.socket.sendall(wire.commands(*(noop(i) for i in range(1, 51))))
                    found = wire.completions(client, 50)
                    assert sorted(done.id for done in found) == list(range(1, 51))
                    assert {done.status for done in found} == {abi.Status.OK}
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong


def test_no_device(serve: Callable[..., Any], engine: Any) -> None:
    server = serve(*engine.server_options)
    with OlderClient(server.port) as client:
        client.socket.sendall(wire.commands(noop(1)))
        wire.completions(client, 1)
        engine.kill()
        client.socket.sendall(wire.commands(noop(2), noop(3)))
        found = wire.completions(client, 2)
        assert {done.id for done in found} == {2, 3}
        assert {(done.status, done.generation) for done in found} == {(abi.Status.NO_DEVICE, 1)}
        engine.start()
        client.socket.sendall(wire.commands(noop(4, generation=2)))
        (done,) = wire.completions(client, 1)
        assert (done.id, done.status) == (4, abi.Status.OK)


def test_no_device_ever(cpu: Any) -> None:
    with OlderClient(cpu.port) as client:
        client.socket.sendall(wire.commands(noop(1), noop(2)))
        assert {done.status for done in wire.completions(client, 2)} == {abi.Status.NO_DEVICE}
        counters = wire.status(client)["counters"]
    assert counters["no_device"] == 2


def test_a_missing_device_file(serve: Callable[..., Any]) -> None:
    server = serve("--device", "/dev/no-such-sst0")
    server.wait_for(r"^No device \(/dev/no-such-sst0: No such file or directory\)")
    with OlderClient(server.port) as client:
        client.socket.sendall(wire.commands(noop(1)))
        (done,) = wire.completions(client, 1)
        assert done.status == abi.Status.NO_DEVICE
        assert wire.status(client)["state"] == "cpu"


def test_a_file_that_is_no_device(serve: Callable[..., Any]) -> None:
    serve("--device", "/dev/null").wait_for(
        r"^No device \(/dev/null does not answer as a virtio-sst device"
    )
