"""`shmgemm bench latency --guest`: a small GEMM by way of RISC-V Linux, and where its time goes.

A round opens a direct session, then one through a guest of its own; each row is a median over
rounds. Within a guest the floor, the baseline and the path take turns.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import status
from .harness import Row, percentile, progress, specs

if TYPE_CHECKING:
    from ..guest import Guest
    from ..session import Session

_M, _K, _N = 32, 128, 256
_DEPTH = 8
_ECHO_BYTES = 64
_HOST_IN_GUEST = "10.0.2.2"  # how a guest reaches the host's loopback on QEMU's user network
_DEADLINE_S = 30.0
# Not through the agent, which would put a pipe and a process of its own between the two: nc reads
# what it wrote from one pipe, which is its input and its output.
_ECHO = "rm -f /tmp/echo; mknod /tmp/echo p; exec nc {host} {port} <>/tmp/echo >&0"


@dataclass(frozen=True)
class Samples:
    """How many of a round."""

    rounds: int
    products: int
    inline: int
    pipelined: int


_FULL = Samples(rounds=5, products=1000, inline=40, pipelined=4000)
_QUICK = Samples(rounds=1, products=50, inline=3, pipelined=100)


def latency(engine: str, quick: bool = False) -> list[Row]:
    """All rows of [guest] in goals.toml."""
    samples = _QUICK if quick else _FULL
    found = []
    for number in range(samples.rounds):
        progress(f"through a guest: round {number + 1} of {samples.rounds}")
        found.append(_round(engine, samples))
    return _rows({key: statistics.median(one[key] for one in found) for key in found[0]})


def _rows(found: dict[str, float]) -> list[Row]:
    rows = specs("guest")
    whole = sum(value for key, value in found.items() if key.startswith("hop_"))
    return [
        rows["gemm"].row(found["gemm"], found["gemm_p99"], found["echo"]),
        rows["echo"].row(found["echo"], found["echo_p99"]),
        rows["gemm_direct"].row(found["direct"], found["direct_p99"]),
        rows["gemm_inline"].row(found["inline"], None, found["gemm"]),
        rows["gemms_8"].row(found["gemms_8"]),
        rows["boot"].row(found["boot"]),
        rows["bytes"].row(found["bytes"], None, found["inline_bytes"]),
        *(rows[key].row(found[key], None, whole) for key in found if key.startswith("hop_")),
        rows["hops"].row(whole),
    ]


def _round(engine: str, samples: Samples) -> dict[str, float]:
    import shmgemm

    from .small_gemm import calls

    found: dict[str, float] = {}
    with shmgemm.open(engine=engine, guest=False, strict=True):
        direct = _times_ms(calls(_M, _K, _N)["gemm"], samples.products)
        found.update(direct=percentile(direct, 0.5), direct_p99=percentile(direct, 0.99))
    with shmgemm.open(engine=engine, guest=True, strict=True) as session:
        guest = session.guest
        assert guest is not None
        assert guest.boot_s is not None
        found["boot"] = guest.boot_s
        product = calls(_M, _K, _N)["gemm"]
        _times_ms(product, samples.products // 10)
        with status.Connection(guest.port) as server:
            found.update(_products(product, server, samples.products))
            found.update(_inline(guest.port, server, samples.inline))
        found.update(_echo(guest, samples.products))
        found["gemms_8"] = _rate(session, samples.pipelined)
    return found


def _times_ms(call: Callable[[], object], count: int) -> list[float]:
    taken = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - begin) / 1e6)
    return taken


def _products(
    product: Callable[[], object], server: status.Connection, count: int
) -> dict[str, float]:
    """One after the other, and what everybody counted meanwhile."""
    before, cpu_ns = server.ask(), time.process_time_ns()
    taken = _times_ms(product, count)
    cpu_us = (time.process_time_ns() - cpu_ns) / 1e3 / count
    difference = status.Difference(before, server.ask())
    hops = status.hops_us(difference, statistics.fmean(taken) * 1e3, cpu_us)
    return {
        "gemm": percentile(taken, 0.5),
        "gemm_p99": percentile(taken, 0.99),
        "bytes": difference.bytes_beyond_records() / count,
        **{f"hop_{name}": value for name, value in hops.items()},
    }


def _inline(port: int, server: status.Connection, count: int) -> dict[str, float]:
    """The same product by op 0: a session without a region, on the same server."""
    import torch

    import shmgemm

    with shmgemm.connect(f"127.0.0.1:{port}", strict=True):
        a, b = torch.randn(_M, _K), torch.randn(_K, _N)
        exact = a.double() @ b.double()
        torch.testing.assert_close(shmgemm.gemm(a, b).double(), exact, rtol=1e-4, atol=1e-4)
        before = server.ask()
        taken = _times_ms(lambda: shmgemm.gemm(a, b), count)
        difference = status.Difference(before, server.ask())
    return {
        "inline": percentile(taken, 0.5),
        "inline_bytes": difference.bytes_beyond_records() / count,
    }


def _rate(session: Session, count: int) -> float:
    """GEMMs a second with _DEPTH of them under way, each with a C of its own."""
    core = session.core
    records = list(_records(session))
    under_way: deque[int] = deque()
    begin = time.perf_counter()
    for number in range(count):
        if len(under_way) == _DEPTH:
            core.wait_raw(under_way.popleft(), _DEADLINE_S)
        under_way.append(core.submit_raw(records[number % _DEPTH]))
    while under_way:
        core.wait_raw(under_way.popleft(), _DEADLINE_S)
    return count / (time.perf_counter() - begin)


def _records(session: Session) -> Iterator[bytes]:
    from .. import abi

    float32 = abi.Dtype.FLOAT32
    a, b = (session.core.empty(shape, float32) for shape in ((_M, _K), (_K, _N)))
    for block in (a, b):
        memoryview(block).cast("B")[:] = bytes(block.nbytes)
    for _ in range(_DEPTH):
        c = session.core.empty((_M, _N), float32)
        command = abi.Command(op=abi.Op.GEMM, dtype_in=float32, dtype_out=float32)
        command.flags = abi.Flag.FLUSH
        command.m, command.n, command.k, command.batch = _M, _N, _K, 1
        command.lda, command.ldb, command.ldc = _K, _N, _N
        command.a, command.b, command.c = a.offset, b.offset, c.offset
        yield bytes(command)


def _echo(guest: Guest, count: int) -> dict[str, float]:
    message = bytes(range(_ECHO_BYTES))
    with _echoing(guest) as connection:

        def round_trip() -> None:
            connection.sendall(message)
            if connection.recv(_ECHO_BYTES, socket.MSG_WAITALL) != message:
                raise RuntimeError("the guest's echo is not what was sent")

        _times_ms(round_trip, count // 10)
        taken = _times_ms(round_trip, count)
    return {"echo": percentile(taken, 0.5), "echo_p99": percentile(taken, 0.99)}


@contextlib.contextmanager
def _echoing(guest: Guest) -> Iterator[socket.socket]:
    """A connection on which the guest's kernel and nc send back what comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_DEADLINE_S)
        words = _ECHO.format(host=_HOST_IN_GUEST, port=listener.getsockname()[1])
        nc = threading.Thread(target=guest.exec, args=(["sh", "-c", words], 10 * _DEADLINE_S))
        nc.start()
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_DEADLINE_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                yield connection
        finally:
            nc.join()
