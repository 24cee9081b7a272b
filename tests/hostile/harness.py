"""What the hostile tests share: products through the compiled session, processes, deadlines.

The tests use `session.core` and NumPy, so that what they provoke is the client and the engine and
not what stands above them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.random  # now: a fork while another thread imports it would leave its lock held

import shmgemm
from shmgemm import abi, settings, sst
from shmgemm.engine import default_engine_path
from shmgemm.session import Session

FLOAT32 = int(abi.Dtype.FLOAT32)
SMALL_REGION = "8MiB"
LONG_REGION = "64MiB"
GENEROUS_S = 2.0  # where the goal is 100 ms


def report(what: str, seconds: float) -> None:
    print(f"measured: {what}: {seconds * 1e3:.1f} ms")


def array(core: Any, *shape: int) -> tuple[np.ndarray, Any]:
    """A float32 array in the region, and the block that holds it."""
    block = core.empty(shape, FLOAT32)
    return np.asarray(memoryview(block)).view(np.float32).reshape(shape), block


def operands(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B and a C of NaN, outside the region."""
    random = np.random.default_rng(size)
    a = random.standard_normal((size, size), dtype=np.float32)
    b = random.standard_normal((size, size), dtype=np.float32)
    return a, b, np.full((size, size), np.nan, dtype=np.float32)


def is_product(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    """Against float64."""
    return bool(np.allclose(c, a.astype(np.float64) @ b.astype(np.float64), atol=1e-4))


def product_is_right(session: Session, size: int = 48) -> bool:
    a, b, c = operands(size)
    gemm(session.core, a, b, c)
    return is_product(c, a, b)


def product(session: Session, device: int, size: int) -> Any:
    """The completion of a product on one of several devices, whose values are right."""
    a, b, c = operands(size)
    done = gemm(session.core, a, b, c, device)
    assert is_product(c, a, b)
    return done


def gemm(core: Any, a: np.ndarray, b: np.ndarray, c: np.ndarray, device: int = 0) -> Any:
    def view(matrix: np.ndarray) -> tuple[int, int, int, int]:
        rows, columns = (stride // matrix.itemsize for stride in matrix.strides)
        return matrix.ctypes.data, 0, rows, columns

    m, n = c.shape
    sizes = (m, n, a.shape[1], 1)
    return core.gemm("gemm", *sizes, FLOAT32, FLOAT32, view(a), view(b), view(c), device=device)


class LongProduct:
    """A batch that keeps the engine busy for a second or more: 16 M elements read over and over."""

    rows, inner, batch = 64, 8192, 1500

    def __init__(self, core: Any, batch: int | None = None, device: int = 0) -> None:
        self.core = core
        self.device = device
        self.batch = batch or self.batch
        self.a, self.a_block = array(core, self.rows, self.inner)
        self.b, self.b_block = array(core, self.inner, self.rows)
        self.c, self.c_block = array(core, self.batch, self.rows, self.rows)
        self.a[:] = 1.0
        self.b[:] = 2.0
        self.c[:] = -1.0

    def command(self) -> bytes:
        """The same as a record for `submit_raw`."""
        command = abi.Command(op=abi.Op.GEMM, dtype_in=FLOAT32, dtype_out=FLOAT32)
        command.flags = abi.Flag.FLUSH
        command.m = command.n = command.ldb = command.ldc = self.rows
        command.k = command.lda = self.inner
        command.batch = self.batch
        command.stride_c = self.rows * self.rows
        command.a, command.b = self.a_block.offset, self.b_block.offset
        command.c = self.c_block.offset
        return bytes(command)

    def run(self) -> Any:
        entry = self.rows * self.rows
        return self.core.gemm(
            "long",
            self.rows,
            self.rows,
            self.inner,
            self.batch,
            FLOAT32,
            FLOAT32,
            (self.a_block.ptr, 0, self.inner, 1),
            (self.b_block.ptr, 0, self.rows, 1),
            (self.c_block.ptr, entry, self.rows, 1),
            device=self.device,
        )


@dataclass
class Outcome:
    """How a call in a thread ended, and when."""

    thread: threading.Thread
    error: BaseException | None = None
    value: Any = None
    ended_at: float = 0.0
    notes: list[str] = field(default_factory=list)

    def join(self, patience_s: float = 60.0) -> Outcome:
        self.thread.join(patience_s)
        assert not self.thread.is_alive(), f"still blocked after {patience_s} s"
        return self


def start(call: Callable[[], Any]) -> Outcome:
    def run() -> None:
        try:
            outcome.value = call()
        except BaseException as error:
            outcome.error = error
        outcome.ended_at = time.monotonic()

    outcome = Outcome(threading.Thread(target=run, daemon=True))
    outcome.thread.start()
    return outcome


def wait_for(condition: Callable[[], bool], what: str, limit_s: float = 10.0) -> float:
    """Seconds until the condition held."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit_s, f"not within {limit_s} s: {what}"
        time.sleep(0.002)
    return time.monotonic() - begin


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait_until_busy(pid: int) -> None:
    """Until the process has computed for a while: what it was asked for has begun."""
    begin = cpu_ticks(pid)
    wait_for(lambda: cpu_ticks(pid) >= begin + 5, f"process {pid} computes", 30)


def is_gone(pid: int) -> bool:
    """No such process, or one that only its new parent has yet to collect."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat[0] in "ZX" and int(stat[1]) != os.getpid()


def zombies() -> list[int]:
    """Children of this process that ended and were not collected."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if stat[0] == "Z":
                found.append(int(pid))
    return found


def open_small(**settings: Any) -> Session:
    return shmgemm.open(**{"region": SMALL_REGION, "hardware": "tpu_v3", "strict": True} | settings)


def open_long(**settings: Any) -> Session:
    return open_small(**{"region": LONG_REGION} | settings)


def sessions_engine() -> str:
    """The program that `shmgemm.open()` starts as things are."""
    if settings.resolve("engine", None) == "sst":
        return sst.find().executable
    return default_engine_path()


PRELUDE = """
import os, signal, sys, threading, time
sys.path.insert(0, {folder!r})
import numpy as np
import numpy.random  # now: a fork while another thread imports it would leave its lock held
import shmgemm
from harness import *
"""


def python(script: str) -> subprocess.Popen[str]:
    """A Python of its own, with this harness imported, in a process group of its own."""
    prelude = PRELUDE.format(folder=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], limit_s: float = 60.0) -> tuple[str, str]:
    """Its output; fails where it does not end or does not end well."""
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"did not end in {limit_s} s\n{output}\n{errors}") from None
    assert process.returncode == 0, f"exit status {process.returncode}\n{output}\n{errors}"
    return output, errors


def read_line(process: subprocess.Popen[str]) -> str:
    """Its next line; what it says before it dies instead is in the failure."""
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    assert line, f"ended early\n{process.stderr.read()}"
    return line.strip()
