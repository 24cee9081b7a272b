"""Inline ops as clients of the older protocol send them, against float64."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import wire
from older_client import GEMM, LINEAR, OlderClient

SHAPES = [(1, 1, 1), (4, 8, 16), (3, 5, 7), (32, 128, 256), (1, 1000, 2), (65, 130, 600)]
TOLERANCE = {"float32": 1e-4, "float64": 1e-12, "float16": 5e-2}


def matrices(m: int, k: int, n: int, dtype: str = "float32", seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return tuple(random.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))  # type: ignore[return-value]


def exact(a: Any, b: Any) -> Any:
    return a.astype(np.float64) @ b.astype(np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gemm_on_the_cpu(cpu: Any, shape: tuple[int, int, int], dtype: str) -> None:
    a, b = matrices(*shape, dtype)
    with OlderClient(cpu.port) as client:
        np.testing.assert_allclose(
            client.gemm(a, b), exact(a, b), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


def test_int8_wraps_nothing_and_is_exact(cpu: Any) -> None:
    random = np.random.default_rng(1)
    a, b = (random.integers(-128, 128, shape).astype(np.int8) for shape in ((9, 300), (300, 11)))
    with OlderClient(cpu.port) as client:
        assert np.array_equal(client.gemm(a, b), a.astype(np.int64) @ b.astype(np.int64))


def test_several_in_a_row_with_and_without_bias(serve: Callable[..., Any], engine: Any) -> None:
    for server in (serve(), serve(*engine.server_options)):
        random = np.random.default_rng(2)
        with OlderClient(server.port) as client:
            for repeat in range(5):
                a, b = matrices(17, 33, 29, seed=repeat)
                bias = random.standard_normal(29).astype(np.float32)
                np.testing.assert_allclose(client.gemm(a, b), exact(a, b), atol=1e-4)
                np.testing.assert_allclose(client.linear(a, b), exact(a, b), atol=1e-4)
                with_bias = client.linear(a, b, bias)
                np.testing.assert_allclose(with_bias, exact(a, b) + bias, atol=1e-4)


def test_the_device_computes_what_it_can(serve: Callable[..., Any], engine: Any) -> None:
    server = serve(*engine.server_options)
    with OlderClient(server.port) as client:
        for dtype in ("float32", "float16"):
            a, b = matrices(8, 12, 20, dtype)
            np.testing.assert_allclose(client.gemm(a, b), exact(a, b), atol=TOLERANCE[dtype])
        small = np.arange(6, dtype=np.int8).reshape(2, 3)
        assert np.array_equal(client.gemm(small, small.T.copy()), small @ small.T.astype(np.int32))
        wide_a, wide_b = matrices(8, 12, 20, "float64")  # the device has no float64
        np.testing.assert_allclose(client.gemm(wide_a, wide_b), exact(wide_a, wide_b), atol=1e-12)
        status = wire.status(client)
    assert status["state"] == "device" and status["info"]["engine"] == "embedded"
    assert status["counters"]["inline_device"] == 3
    assert status["counters"]["inline_cpu"] == 1
    assert status["info"]["ops"] == 1 + 3  # with the self-check


def test_a_product_larger_than_the_arena(serve: Callable[..., Any], engine: Any) -> None:
    server = serve(*engine.server_options)
    a, b = matrices(4, 1200, 4000)  # B has 19 MB, the arena 15
    with OlderClient(server.port) as client:
        np.testing.assert_allclose(client.gemm(a, b), exact(a, b), atol=1e-3)
        counters = wire.status(client)["counters"]
    assert counters["inline_cpu"] == 1 and counters["inline_device"] == 0


@pytest.mark.parametrize("with_device", [False, True])
def test_pipelined_answers_come_in_order(
    serve: Callable[..., Any], engine: Any, with_device: bool
) -> None:
    server = serve(*(engine.server_options if with_device else ()))
    asked = [matrices(1 + i % 7, 3 + i, 5 + i % 11, seed=i) for i in range(100)]
    with OlderClient(server.port) as client:
        sender = threading.Thread(
            target=lambda: [client.send(i % 2, *pair) for i, pair in enumerate(asked)]
        )
        sender.start()
        for a, b in asked:
            np.testing.assert_allclose(client.receive(a, b), exact(a, b), atol=1e-4)
        sender.join(60)


def test_products_that_do_not_fit_the_arena_together(
    serve: Callable[..., Any], engine: Any
) -> None:
    server = serve(*engine.server_options)
    a, b = matrices(64, 1024, 1024)  # 4.5 MB each, of which 3 fit
    clients = [OlderClient(server.port) for _ in range(8)]
    for client in clients:
        client.send(GEMM, a, b)
    for client in clients:
        np.testing.assert_allclose(client.receive(a, b), exact(a, b), atol=1e-3)
    with clients[0] as client:
        counters = wire.status(client)["counters"]
    assert counters["inline_device"] + counters["inline_cpu"] == 8
    assert counters["inline_device"] >= 3
    for client in clients:
        client.close()


@pytest.mark.parametrize("with_device", [False, True])
def test_many_connections(serve: Callable[..., Any], engine: Any, with_device: bool) -> None:
    server = serve(*(engine.server_options if with_device else ()))
    wrong: list[str] = []

    def work(seed: int) -> None:
        try:
            with OlderClient(server.port) as client:
                for repeat in range(10):
                    a, b = matrices(6, 10, 14, seed=100 * seed + repeat)
                    np.testing.assert_allclose(client.gemm(a, b), exact(a, b), atol=1e-4)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong
    with OlderClient(server.port) as client:
        counters = wire.status(client)["counters"]
    assert counters["frames"]["gemm"] == 400 and counters["connections"] == 41


def test_without_an_engine_then_with_one_then_without(
    serve: Callable[..., Any], engine: Any
) -> None:
    engine.kill()
    server = serve(*engine.server_options)
    server.wait_for(r"^No device \(no engine listens")
    a, b = matrices(5, 6, 7)
    with OlderClient(server.port) as client:
        np.testing.assert_allclose(client.gemm(a, b), exact(a, b), atol=1e-4)
        assert wire.status(client)["state"] == "cpu"
        for round_ in (1, 2):
            engine.start()
            server.wait_for("a device answers", round_)
            np.testing.assert_allclose(client.gemm(a, b), exact(a, b), atol=1e-4)
            assert wire.status(client)["state"] == "device"
            engine.kill()
            server.wait_for(r"no device answers \(the engine hung up", round_)
            np.testing.assert_allclose(client.gemm(a, b), exact(a, b), atol=1e-4)
        counters = wire.status(client)["counters"]
    assert counters["inline_device"] == 2 and counters["inline_cpu"] == 3


def test_a_region_that_is_not_the_engines(
    serve: Callable[..., Any], engine: Any, tmp_path: Any
) -> None:
    other = tmp_path / "other"
    other.write_bytes(engine.region.read_bytes())  # the same header, other memory
    server = serve("--link", str(engine.link), "--region", str(other))
    server.wait_for(r"^No device \(.*is share=on missing\?")
    a, b = matrices(5, 6, 7)
    with OlderClient(server.port) as client:
        np.testing.assert_allclose(client.linear(a, b), exact(a, b), atol=1e-4)
        assert "share=on" in wire.status(client)["reason"]


def test_two_servers_do_not_share_an_arena(serve: Callable[..., Any], engine: Any) -> None:
    first = serve(*engine.server_options)
    second = serve(*engine.server_options)
    first.wait_for("^Connected to the device")
    second.wait_for(r"^No device \(the arena for a device server is in another server's hands")
    first.stop()
    second.wait_for("a device answers")


def test_debug_log_names_op_shapes_and_bytes(cpu: Any) -> None:
    a, b = matrices(4, 8, 16)
    with OlderClient(cpu.port) as client:
        client.linear(a, b, np.zeros(16, np.float32))
        cpu.wait_for(
            r"op 1 LINEAR, 4x8 @ 8x16 float32 with bias:"
            r" JSON \d+, A 128, B 512, bias 64, C 256 bytes \(\d+ bytes\)"
        )
        client.send(LINEAR, a, b)
        client.receive(a, b)
