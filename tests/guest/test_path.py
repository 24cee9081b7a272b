"""From PyTorch through a real guest to the engine and back: values, cycles, losses, zero copy.

The observers are outside: TCP_INFO of the client's socket, a relay between QEMU and the engine, the
counters of server, driver and device. tests/server has the older protocol's client.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmgemm
from shmgemm import _guest_path, abi, errors, guest
from shmgemm.session import make_current

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

import wire
from older_client import OlderClient
from processes import Engine
from relay import Relay

torch = pytest.importorskip("torch")
PRESET = "tiny_4x4_ws"
READY_S = 300.0  # generous: the machine may be busy
COMMAND_BYTES, COMPLETION_BYTES, HEAD_BYTES, SIZE_BYTES, LINK_HEAD_BYTES = 128, 64, 9, 4, 8


@pytest.fixture(autouse=True, scope="module")
def patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_guest_path, "_READY_TIMEOUT_S", READY_S)
        yield


@pytest.fixture(scope="module")
def booted(image: guest.Image, patience: None) -> Iterator[shmgemm.Session]:
    with shmgemm.open(guest=True, hardware=PRESET, strict=True, region="64MiB") as opened:
        yield opened


@pytest.fixture
def session(booted: shmgemm.Session) -> Iterator[shmgemm.Session]:
    """The one guest that most tests share; its device computes."""
    with computing_on(booted):
        yield booted


def matrices(m: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(m * n + k)
    a, b = random.standard_normal((m, k)), random.standard_normal((k, n))
    return torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)


def check_product(m: int = 9, n: int = 8, k: int = 7) -> None:
    a, b = matrices(m, n, k)
    expected = a.double() @ b.double()
    torch.testing.assert_close(shmgemm.gemm(a, b).double(), expected, rtol=1e-4, atol=1e-4)


def machine_of(session: shmgemm.Session) -> guest.Guest:
    assert session.guest is not None
    return session.guest


def status_of(session: shmgemm.Session) -> dict[str, Any]:
    with OlderClient(machine_of(session).port) as client:
        return wire.status(client)


# --- the same device, by another way ------------------------------------------------------------


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    m=st.integers(1, 50),
    n=st.integers(1, 50),
    k=st.integers(1, 50),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    bias=st.booleans(),
)
def test_bits_and_cycles_are_those_of_the_direct_path(
    session: shmgemm.Session, m: int, n: int, k: int, dtype: torch.dtype, bias: bool
) -> None:
    a, b = matrices(m, n, k)
    a, b = a.to(dtype), b.T.contiguous().to(dtype)
    extra = torch.arange(n).to(dtype) if bias else None
    before = session.stats()["cycles"]
    through = shmgemm.linear(a, b, extra)
    cycles = session.stats()["cycles"] - before
    with shmgemm.open(hardware=PRESET, strict=True, region="16MiB", guest=False) as direct:
        assert torch.equal(through, shmgemm.linear(a, b, extra))
        assert cycles == direct.stats()["cycles"]


def test_a_model_and_its_gradients(session: shmgemm.Session) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 5)
    plain = torch.nn.Sequential(*layers)
    x = torch.randn(6, 12)
    expected = plain(x)
    expected.sum().backward()
    wanted = [parameter.grad.clone() for parameter in plain.parameters()]
    plain.zero_grad()
    shmgemm.offload_(plain)
    with shmgemm.profile() as prof:
        result = plain(x)
        result.sum().backward()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    for parameter, gradient in zip(plain.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4)
    assert len(prof.records) >= 5 and all(record.end_cycles > 0 for record in prof.records)


def test_engine_sst(image: guest.Image) -> None:
    if shutil.which("sst-config") is None:
        pytest.skip("needs sst-config")
    a, b = matrices(30, 20, 10)
    with shmgemm.open("sst", True, PRESET, strict=True, region="64MiB") as through:
        one = shmgemm.gemm(a, b)
        assert through.info()["engine"] == "sst"
        cycles = through.stats()["cycles"]
    with shmgemm.open(hardware=PRESET, guest=False) as direct:
        assert torch.equal(one, shmgemm.gemm(a, b))
        assert cycles == direct.stats()["cycles"]


# --- no matrix byte leaves the region -----------------------------------------------------------


def tcp_bytes(port: int) -> tuple[int, int]:
    """(acknowledged by the other side, received), of this process's connection to that port."""
    for name in os.listdir("/proc/self/fd"):
        try:
            duplicate = os.dup(int(name))
        except OSError:
            continue
        try:
            connection = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            continue
        with connection:
            try:
                if connection.family != socket.AF_INET or connection.getpeername()[1] != port:
                    continue
            except OSError:
                continue
            while True:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
                acknowledged, received = struct.unpack_from("<QQ", info, 120)
                (unacknowledged,) = struct.unpack_from("<I", info, 24)
                if unacknowledged == 0:
                    return acknowledged, received
                time.sleep(0.001)
    raise AssertionError(f"no connection to port {port}")


@pytest.fixture(scope="module")
def observed(
    image: guest.Image, patience: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[shmgemm.Session, Relay]]:
    """A session with an observer between QEMU and the engine."""
    relays = []
    path = tmp_path_factory.mktemp("relay") / "relay.sock"
    real = guest.Guest

    def behind_relay(region: str, link: str, *arguments: Any, **options: Any) -> guest.Guest:
        relays.append(Relay(path, link))
        return real(region, path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_guest_path.guest, "Guest", behind_relay)
        opened = shmgemm.open(guest=True, hardware=PRESET, strict=True, region="64MiB")
    with opened:
        yield opened, relays[0]
    relays[0].close()


def test_only_records_travel_and_all_counters_agree(
    observed: tuple[shmgemm.Session, Relay],
) -> None:
    session, relay = observed
    count = 100
    with computing_on(session):
        port = machine_of(session).port
        a, b = (shmgemm.to_region(matrix) for matrix in matrices(64, 64, 64))
        shmgemm.gemm(a, b)
        before, tcp_before = status_of(session), tcp_bytes(port)
        links_before = relay.to_engine, relay.to_device
        for _ in range(count):
            shmgemm.gemm(a, b)
        to_engine, to_device = (
            relay.to_engine - links_before[0],
            relay.to_device - links_before[1],
        )
        sent, received = map(int.__sub__, tcp_bytes(port), tcp_before)
        after = status_of(session)
        assert session.stats()["bytes_copied"] == 0

    assert sent == count * (HEAD_BYTES + COMMAND_BYTES)
    assert received == count * (SIZE_BYTES + COMPLETION_BYTES)
    assert to_engine == count * (LINK_HEAD_BYTES + COMMAND_BYTES)
    assert to_device == count * (LINK_HEAD_BYTES + COMPLETION_BYTES)

    def grew(part: str, key: str) -> int:
        return int(after[part][key]) - int(before[part][key])

    assert grew("counters", "commands") == grew("counters", "completions") == count
    assert grew("counters", "matrix_bytes") == 0
    own = grew("driver", "commands") - count  # a status is itself a command, the server's own
    assert own in (0, 1, 2)
    assert grew("driver", "completions") == grew("virtio_device", "commands") == count + own
    assert grew("virtio_device", "completed") == count + own
    control(session, before=after)


@contextlib.contextmanager
def computing_on(session: shmgemm.Session) -> Iterator[None]:
    """That session's device computes, whichever was opened last."""
    former = shmgemm.current()
    make_current(session)
    yield
    make_current(former)


def control(session: shmgemm.Session, before: dict[str, Any]) -> None:
    """The same observers see matrices where they do travel: by inline ops."""
    a, b = (matrix.numpy() for matrix in matrices(64, 64, 64))
    with OlderClient(machine_of(session).port) as client:
        c = client.gemm(a, b)
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)
    after = status_of(session)
    matrices_bytes = 3 * 4 * 64 * 64
    grew = after["counters"]["matrix_bytes"] - before["counters"]["matrix_bytes"]
    assert grew == matrices_bytes
    assert after["counters"]["bytes_in"] - before["counters"]["bytes_in"] > 2 * 4 * 64 * 64
    assert after["counters"]["inline_device"] == before["counters"]["inline_device"] + 1


def test_operands_are_read_when_the_command_is_released(
    observed: tuple[shmgemm.Session, Relay],
) -> None:
    session, relay = observed
    with computing_on(session):
        check_late_operand(session, relay)


def check_late_operand(session: shmgemm.Session, relay: Relay) -> None:
    a, b = (shmgemm.to_region(matrix) for matrix in matrices(4, 4, 4))
    c = shmgemm.empty(4, 4)
    base = region_base(session)
    command = abi.Command(
        op=abi.Op.GEMM,
        dtype_in=abi.Dtype.FLOAT32,
        dtype_out=abi.Dtype.FLOAT32,
        m=4,
        n=4,
        k=4,
        batch=1,
        lda=4,
        ldb=4,
        ldc=4,
        a=a.data_ptr() - base,
        b=b.data_ptr() - base,
        c=c.data_ptr() - base,
    )
    before = relay.to_engine
    compute = abi.Command(op=abi.Op.COMPUTE)
    compute.arg[0] = 100
    held = session.core.submit_raw(bytes(compute))
    first = session.core.submit_raw(bytes(command))
    rest = [session.core.submit_raw(bytes(abi.Command(op=abi.Op.NOOP))) for _ in range(62)]
    deadline = time.monotonic() + READY_S
    while relay.to_engine < before + 64 * COMMAND_BYTES:
        assert time.monotonic() < deadline, "64 unflushed commands travel to the engine"
        time.sleep(0.01)
    a.fill_(2.0)
    for identity in (*rest, held, first):
        session.core.wait_raw(identity, READY_S)
    torch.testing.assert_close(c, torch.full((4, 4), 2.0) @ b, rtol=1e-5, atol=1e-5)


def region_base(session: shmgemm.Session) -> int:
    """Where byte 0 of the region lies in this process: of its two mappings, the session's own."""
    inode = os.fstat(session.core.region_fd).st_ino
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:shmgemm" in line and f" {inode} " in line:
            return int(line.split("-")[0], 16)
    raise AssertionError("the region is not mapped")


# --- clients ------------------------------------------------------------------------------------


def test_the_older_protocol_in_the_guest(session: shmgemm.Session) -> None:
    a, b = (matrix.numpy() for matrix in matrices(6, 5, 4))
    bias = np.arange(5, dtype=np.float32)
    expected = a.astype(np.float64) @ b
    with OlderClient(machine_of(session).port) as client:
        for _ in range(3):
            np.testing.assert_allclose(client.gemm(a, b), expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(client.linear(a, b), expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(
                client.linear(a, b, bias), expected + bias, rtol=1e-4, atol=1e-4
            )


def test_a_second_client_whose_matrices_travel(session: shmgemm.Session) -> None:
    address = f"127.0.0.1:{machine_of(session).port}"
    with shmgemm.connect(address, hardware=PRESET, strict=True) as second:
        check_product()
        assert (second.stats()["ops"], second.stats()["cycles"]) == (1, 0)
    check_product()


def test_two_clients_of_a_guest_and_an_engine_started_by_hand(
    image: guest.Image, tmp_path: Path
) -> None:
    """QEMU and its guest first, the engine when they are up."""
    region = tmp_path / "region"
    with open(region, "wb") as file:
        file.truncate(64 << 20)
    with guest.Guest(region, tmp_path / "link", image=image) as machine:
        machine.wait_ready(READY_S)
        engine = Engine(tmp_path, PRESET)
        address = f"127.0.0.1:{machine.port}"
        try:
            sessions = [connected(address, region) for _ in range(2)]
            for opened in sessions:
                with computing_on(opened):
                    check_product()
                assert opened.stats()["cycles"] > 0
                opened.close()
        finally:
            engine.process.stop()


def connected(address: str, region: Path) -> shmgemm.Session:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            return shmgemm.connect(address, region, PRESET, strict=True)
        except errors.ShmgemmError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ping"], r"pong: the engine answered in \d+ us"),
        (["echo", "hello, device"], "hello, device"),
        (["compute", "100000"], r"100000 units: \d+ cycles, ended at cycle \d+"),
        (["info"], r"(?s)interrupts: MSI-X.*engine +connected"),
        (["gemm", "5", "6", "7"], "values +right"),
    ],
)
def test_sstctl(session: shmgemm.Session, words: list[str], expected: str) -> None:
    status, output = machine_of(session).exec(["sstctl", *words], READY_S)
    assert status == 0 and re.search(expected, output), output


# --- losses -------------------------------------------------------------------------------------


def right_in_the_end() -> None:
    """What was in flight may be lost, what comes next is right."""
    with contextlib.suppress(errors.DeviceLost, errors.DeviceTimeout):
        for _ in range(100):
            check_product()
            time.sleep(0.01)
    check_product()


def test_engine_killed(session: shmgemm.Session) -> None:
    check_product()
    boots, former = machine_of(session).pid, session.core.engine_pid
    os.kill(former, signal.SIGKILL)
    right_in_the_end()
    assert session.core.engine_pid != former
    assert machine_of(session).pid == boots, "the guest lives on, its device found the new engine"


def test_qemu_killed(session: shmgemm.Session) -> None:
    former = machine_of(session).pid
    kept = shmgemm.to_region(torch.ones(3, 3))
    os.kill(former, signal.SIGKILL)
    right_in_the_end()
    assert machine_of(session).pid != former
    assert torch.equal(shmgemm.gemm(kept, kept), torch.full((3, 3), 3.0)), "the region survives"


def test_guest_powered_off(session: shmgemm.Session) -> None:
    former = machine_of(session).pid
    machine_of(session).exec(["sh", "-c", "(sleep 0.2; kill -TERM 1) &"], READY_S)
    right_in_the_end()
    assert machine_of(session).pid != former


def test_a_thousand_products_leak_nothing(session: shmgemm.Session) -> None:
    a, b = matrices(16, 16, 16)

    def held() -> tuple[int, int, int]:
        status, output = machine_of(session).exec(
            ["sh", "-c", "ls /proc/1/fd | wc -l; grep VmRSS /proc/1/status"], READY_S
        )
        assert status == 0
        files, resident = re.findall(r"\d+", output)
        return len(os.listdir("/proc/self/fd")), int(files), int(resident)

    for _ in range(100):
        shmgemm.gemm(a, b)
    before, heap = held(), session.stats()["heap_used_bytes"]
    for _ in range(1000):
        shmgemm.gemm(a, b)
    after = held()
    assert after[:2] == before[:2], "descriptors on the host and of the server"
    assert after[2] - before[2] < 256, "KiB of the server's memory"
    assert session.stats()["heap_used_bytes"] == heap


def test_two_devices_without_waiting(image: guest.Image) -> None:
    a, b = matrices(8, 7, 9)
    layer, x = torch.nn.Linear(32, 64), torch.randn(4, 32)
    wanted = layer(x)
    with shmgemm.open(guest=True, hardware=PRESET, devices=2, strict=True, region="64MiB"):
        with shmgemm.profile() as prof:
            futures = [shmgemm.gemm_async(a, b, sim_device=index % 2) for index in range(4)]
            for product in (*(future.result() for future in futures), *shmgemm.batch([(a, b)] * 3)):
                torch.testing.assert_close(product, a @ b, rtol=1e-4, atol=1e-4)
            shmgemm.shard_linear_(layer, 2)
            torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
        shmgemm.restore_(layer)
    times = [(op.device, op.start_cycles) for op in prof.records]
    begin, cycles = times[0][1], prof.records[0].cycles
    assert times[:4] == [(0, begin), (1, begin), (0, begin + cycles), (1, begin + cycles)]
    assert {device for device, _ in times[7:]} == {0, 1}
    assert len({start for _, start in times[7:]}) == 1, "both halves of the layer at once"


ATTACHED = """
import numpy as np, shmgemm
session = shmgemm.attach("beside", strict=True)
ones = np.ones((5, 6), np.float32)
assert not session.guest
for _ in range(200):
    assert (shmgemm.gemm(ones, ones.T) == 6).all()
print(session.stats()["ops"], session.stats()["cycles"])
"""


def test_another_process_attaches_to_the_engine_behind_a_guest(
    image: guest.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    options: dict[str, Any] = {"name": "beside", "clients": 1, "region": "64MiB"}
    with shmgemm.open(guest=True, hardware=PRESET, strict=True, **options) as session:
        before = session.stats()
        check_product(5, 5, 6)
        cycles = session.stats()["cycles"] - before["cycles"]
        command = [sys.executable, "-c", ATTACHED]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            while child.poll() is None:
                check_product()
            assert child.stdout is not None
            assert child.stdout.read().split() == ["200", str(200 * cycles)]
        assert child.returncode == 0
        check_product()


def test_nothing_is_left(image: guest.Image) -> None:
    opened = shmgemm.open(guest=True, hardware=PRESET, region="64MiB")
    machine = machine_of(opened)
    pid, link = machine.pid, Path(opened._path.link)  # type: ignore[union-attr]
    opened.close()
    assert not Path(f"/proc/{pid}").exists()
    assert not link.parent.exists()
