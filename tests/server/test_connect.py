"""`shmgemm.connect`: sessions through a native device server, with its region and without."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Engine, Server

import shmgemm
from shmgemm import errors

torch = pytest.importorskip("torch")
PRESET = "tiny_4x4_ws"


@pytest.fixture
def server(engine: Engine, serve: Callable[..., Server]) -> Server:
    started = serve(*engine.server_options)
    started.wait_for("Connected to the device")
    return started


@pytest.fixture
def attached(engine: Engine, server: Server) -> Iterator[shmgemm.Session]:
    address = f"127.0.0.1:{server.port}"
    with shmgemm.connect(address, engine.region, PRESET, strict=True) as session:
        yield session


@pytest.fixture
def without_region(server: Server) -> Iterator[shmgemm.Session]:
    with shmgemm.connect(f"127.0.0.1:{server.port}", hardware=PRESET, strict=True) as session:
        yield session


def product(m: int = 5, n: int = 7, k: int = 6) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    random = np.random.default_rng(m * n * k)
    a, b = random.standard_normal((m, k)), random.standard_normal((k, n))
    return torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32), a @ b


def cycles_direct(m: int, n: int, k: int) -> int:
    with shmgemm.open(hardware=PRESET) as direct:
        a, b, _ = product(m, n, k)
        shmgemm.gemm(a, b)
        return int(direct.stats()["cycles"])


def test_values_and_cycles_are_those_of_the_direct_path(attached: shmgemm.Session) -> None:
    a, b, expected = product()
    np.testing.assert_allclose(shmgemm.gemm(a, b), expected, rtol=1e-4, atol=1e-4)
    cycles = attached.stats()["cycles"]
    assert cycles == cycles_direct(5, 7, 6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(m=st.integers(1, 40), n=st.integers(1, 40), k=st.integers(1, 40), bias=st.booleans())
def test_any_shape_on_both_ways(
    attached: shmgemm.Session, server: Server, m: int, n: int, k: int, bias: bool
) -> None:
    a, b, expected = product(m, n, k)
    extra = torch.arange(float(n)) if bias else None
    wanted = expected + (extra.numpy() if extra is not None else 0)
    one = shmgemm.linear(a, b.T.contiguous(), extra)
    np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-3)
    address = f"127.0.0.1:{server.port}"
    with shmgemm.connect(address, hardware=PRESET, strict=True):
        other = shmgemm.linear(a, b.T.contiguous(), extra)
    torch.testing.assert_close(other, one)


def test_tensors_in_the_region_are_not_copied(attached: shmgemm.Session) -> None:
    a, b, expected = product(32, 24, 16)
    in_region = shmgemm.to_region(a), shmgemm.to_region(b)
    before = attached.info()
    result = shmgemm.gemm(*in_region)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    assert attached.stats()["bytes_copied"] == 0
    after = attached.info()
    commands = after["link_commands"] - before["link_commands"]
    # On the link, between server and engine: a head of 8 bytes and a record each way, no matrix.
    assert after["link_bytes_in"] - before["link_bytes_in"] == commands * (8 + 128)
    assert after["link_bytes_out"] - before["link_bytes_out"] == commands * (8 + 64)


def test_profile_has_records_with_cycles(attached: shmgemm.Session) -> None:
    a, b, _ = product()
    with shmgemm.profile() as prof:
        shmgemm.gemm(a, b)
    assert prof.records[0].end_cycles > prof.records[0].start_cycles


def test_gradients_go_through_it(attached: shmgemm.Session) -> None:
    a, b, _ = product()
    a.requires_grad_()
    shmgemm.gemm(a, b).sum().backward()
    torch.testing.assert_close(a.grad, b.sum(1).expand(5, 6))
    assert attached.stats()["ops"] >= 2


def test_two_clients_have_arenas_of_their_own(
    attached: shmgemm.Session, engine: Engine, server: Server
) -> None:
    address = f"127.0.0.1:{server.port}"
    with shmgemm.connect(address, engine.region, PRESET, strict=True) as second:
        a, b, expected = product()
        theirs, ours = second.core.empty((4,), 1), attached.core.empty((4,), 1)
        np.testing.assert_allclose(shmgemm.gemm(a, b), expected, rtol=1e-4, atol=1e-4)
        arenas = attached.core.stats()["heap_bytes"]
        assert abs(theirs.offset - ours.offset) >= arenas
        third = shmgemm.connect(address, engine.region, PRESET)
        fourth = shmgemm.connect(address, engine.region, PRESET)
        with pytest.raises(errors.RegionFull, match="arena"):
            shmgemm.connect(address, engine.region, PRESET)
        third.close()
        fourth.close()


def test_many_threads_share_the_connections(without_region: shmgemm.Session) -> None:
    wrong: list[BaseException] = []

    def work(size: int) -> None:
        try:
            for _ in range(10):
                a, b, expected = product(size, size + 1, size + 2)
                np.testing.assert_allclose(shmgemm.gemm(a, b), expected, rtol=1e-4, atol=1e-4)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(size,)) for size in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert without_region.stats()["ops"] == 80


def test_without_region_no_cycles_and_no_commands(without_region: shmgemm.Session) -> None:
    a, b, _ = product()
    shmgemm.gemm(a, b)
    stats = without_region.stats()
    assert (stats["ops"], stats["cycles"]) == (1, 0)
    assert stats["bytes_copied"] == 4 * (5 * 6 + 6 * 7 + 5 * 7)
    with pytest.raises(errors.Unsupported, match="with region="):
        without_region.info()


def test_a_forked_child_leaves_the_connections_alone(without_region: shmgemm.Session) -> None:
    a, b, expected = product()
    shmgemm.gemm(a, b)
    child = os.fork()
    if child == 0:
        try:
            without_region.core.noop()
        except errors.SessionClosed:
            os._exit(0)
        except BaseException:
            os._exit(2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_allclose(shmgemm.gemm(a, b), expected, rtol=1e-4, atol=1e-4)


def test_an_engine_that_comes_back_is_used_again(
    attached: shmgemm.Session, engine: Engine, server: Server
) -> None:
    a, b, expected = product()
    engine.kill()
    with pytest.raises(errors.DeviceLost):
        shmgemm.gemm(a, b)
    engine.start()
    server.wait_for("a device answers", 2)
    for attempt in range(20):
        try:
            result = shmgemm.gemm(a, b)
            break
        except errors.ShmgemmError:
            assert attempt < 19
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_a_server_that_is_killed(
    engine: Engine, serve: Callable[..., Server], tmp_path: Path
) -> None:
    doomed = serve(*engine.server_options)
    doomed.wait_for("Connected to the device")
    a, b, _ = product()
    with shmgemm.connect(f"127.0.0.1:{doomed.port}", engine.region, PRESET, strict=True):
        shmgemm.gemm(a, b)
        doomed.stop(signal.SIGKILL)
        with pytest.raises(errors.DeviceLost, match=f"127.0.0.1:{doomed.port}"):
            shmgemm.gemm(a, b)


@pytest.mark.parametrize("server", ["", "nowhere", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:x"])
def test_no_address(server: str) -> None:
    with pytest.raises(errors.Unsupported, match="HOST:PORT"):
        shmgemm.connect(server, hardware=PRESET)


def test_nobody_listens() -> None:
    with pytest.raises(errors.DeviceLost, match=r"127\.0\.0\.1:1: Connection refused"):
        shmgemm.connect("127.0.0.1:1", hardware=PRESET)


def test_no_engine_behind_the_server(engine: Engine, server: Server) -> None:
    engine.kill()
    server.wait_for("no device answers", 1)
    with pytest.raises(errors.DeviceLost, match="no device behind this connection"):
        shmgemm.connect(f"127.0.0.1:{server.port}", engine.region, PRESET)


def test_another_hardware_than_the_engines(engine: Engine, server: Server) -> None:
    with pytest.raises(ValueError, match=r"clock_hz|model"):
        shmgemm.connect(f"127.0.0.1:{server.port}", engine.region, "tpu_v3")


def test_no_region_there(server: Server, tmp_path: Path) -> None:
    address = f"127.0.0.1:{server.port}"
    with pytest.raises(errors.Unsupported, match="no-region"):
        shmgemm.connect(address, tmp_path / "no-region", PRESET)
    (tmp_path / "zeros").write_bytes(bytes(4 << 20))
    with pytest.raises(errors.ProtocolError, match="not a shmgemm region"):
        shmgemm.connect(address, tmp_path / "zeros", PRESET)
