"""Fork, threads, several sessions, Ctrl-C, and programs that end while the device works."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from harness import (
    GENEROUS_S,
    finish,
    gemm,
    is_gone,
    open_small,
    product_is_right,
    python,
    read_line,
    report,
    start,
    wait_for,
    wait_until_busy,
)

import shmgemm
from shmgemm import abi

FORK = """
session = open_small()
assert product_is_right(session)
matrix, block = array(session.core, 8, 8)
matrix[:] = 5.0
engine = session.core.engine_pid
child = os.fork()
if child == 0:
    try:
        {child}
    except BaseException as error:
        print("child:", type(error).__name__, error, flush=True)
        os._exit(3)
    {leave}
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
time.sleep(0.2)
assert session.core.engine_pid == engine, "the parent's engine survives"
assert product_is_right(session)
assert session.stats()["engine_starts"] == 1
assert (matrix == 5.0).all()
print("status", status)
"""


@pytest.mark.parametrize("leave", ["os._exit(0)", "sys.exit(0)"])
def test_child_of_a_fork_opens_its_own_session(leave: str) -> None:
    child = """
        a = np.ones((4, 8), np.float32)
        c = shmgemm.gemm(a, np.ones((8, 3), np.float32))
        assert (np.asarray(c) == 8.0).all()
        assert shmgemm.current().core.engine_pid != engine
    """
    output, errors = finish(python(FORK.format(child=child.strip(), leave=leave)))
    assert output.strip() == "status 0"
    assert errors == ""


def test_child_of_a_fork_is_told_that_the_session_is_not_its_own() -> None:
    child = """
        assert session.closed
        session.core.noop()
    """
    output, _ = finish(python(FORK.format(child=child.strip(), leave="os._exit(0)")))
    assert "child: SessionClosed" in output
    assert "the process that forked this one" in output
    assert "open another" in output
    assert "status 3" in output


def test_child_of_a_fork_may_close_and_drop_what_it_inherited() -> None:
    child = """
        session.close()
        del matrix, block, session
        import gc
        gc.collect()
    """
    output, errors = finish(python(FORK.format(child=child.strip(), leave="sys.exit(0)")))
    assert output.strip() == "status 0"
    assert errors == ""


def test_fork_while_other_threads_use_the_device() -> None:
    output, errors = finish(
        python(
            """
            session = open_small()
            stop = threading.Event()

            def products():
                while not stop.is_set():
                    assert product_is_right(session, 24)

            outcomes = [start(products) for _ in range(4)]
            for _ in range(10):
                child = os.fork()
                if child == 0:
                    signal.alarm(20)
                    mine = open_small()
                    os._exit(0 if product_is_right(mine) else 1)
                assert os.waitpid(child, 0)[1] == 0
            stop.set()
            assert all(outcome.join().error is None for outcome in outcomes)
            assert product_is_right(session)
            print("right")
            """
        )
    )
    assert output.strip() == "right", errors


def test_two_sessions_at_once() -> None:
    with open_small() as first, open_small() as second:
        assert first.core.engine_pid != second.core.engine_pid
        blocked = start(lambda: [product_is_right(first) for _ in range(50)])
        assert all(product_is_right(second) for _ in range(50))
        assert all(blocked.join().value)
        os.kill(second.core.engine_pid, signal.SIGKILL)
        assert product_is_right(first), "one's loss is not the other's"
        assert first.stats()["engine_starts"] == 1


def test_closed_session_gives_way_to_the_one_before() -> None:
    with open_small() as first:
        with open_small():
            pass
        assert shmgemm.current() is first
        assert product_is_right(first)


def test_sixteen_threads() -> None:
    threads, operations = 16, 200

    def products(seed: int) -> int:
        random = np.random.default_rng(seed)
        right = 0
        for _ in range(operations):
            m, n, k = (int(size) for size in random.integers(1, 40, 3))
            a = random.standard_normal((m, k), dtype=np.float32)
            b = random.standard_normal((k, n), dtype=np.float32)
            c = np.full((m, n), np.nan, dtype=np.float32)
            gemm(session.core, a, b, c)
            right += np.allclose(c, a.astype(np.float64) @ b, atol=1e-4)
        return right

    with open_small() as session:
        begin = time.monotonic()
        outcomes = [start(lambda seed=seed: products(seed)) for seed in range(threads)]
        for outcome in outcomes:
            assert outcome.join().error is None
        report(f"{threads} x {operations} products", time.monotonic() - begin)
        assert [outcome.value for outcome in outcomes] == [operations] * threads
        assert session.stats()["ops"] == threads * operations
        assert session.stats()["heap_used_bytes"] == 0


def test_many_threads_with_records_of_their_own() -> None:
    """Each thread submits ahead and collects its own echoes, whoever reaps them."""

    def echoes(base: int) -> None:
        for turn in range(40):
            ids = []
            for i in range(6):
                echo = abi.Command(op=abi.Op.ECHO)
                echo.arg[0] = base + turn * 6 + i
                ids.append(session.core.submit_raw(bytes(echo)))
            for i, number in enumerate(ids):
                record = session.core.wait_raw(number)
                assert abi.Completion.from_buffer_copy(record).busy_cycles == base + turn * 6 + i

    with open_small() as session:
        outcomes = [start(lambda base=base: echoes(base * 10**6)) for base in range(16)]
        for outcome in outcomes:
            assert outcome.join().error is None


EXIT_S = 5.0  # torch's own threads and teardown are in it
EXITS = {
    "thread in a long product": """
        long = LongProduct(session.core)
        start(long.run)
        wait_until_busy(session.core.engine_pid)
    """,
    "threads in small products": """
        def products():
            while True:
                product_is_right(session)
        for _ in range(4):
            start(products)
        time.sleep(0.2)
    """,
    "threads in torch's products": """
        import torch
        a = torch.ones(300, 300)
        def products():
            while True:
                shmgemm.gemm(a, a)
        for _ in range(3):
            start(products)
        time.sleep(0.2)
    """,
    "threads in torch's backward": """
        import torch
        layer = shmgemm.DeviceLinear(64, 64)
        x = torch.ones(32, 64)
        def training():
            while True:
                layer(x).sum().backward()
        for _ in range(2):
            start(training)
        time.sleep(0.3)
    """,
    "threads in NumPy's products": """
        a = np.ones((300, 300), np.float32)
        def products():
            while True:
                shmgemm.gemm(a, a)
        for _ in range(3):
            start(products)
        time.sleep(0.2)
    """,
    "records nobody waits for": """
        long = LongProduct(session.core)
        for _ in range(5):
            session.core.submit_raw(long.command())
    """,
    "engine stopped": """
        os.kill(session.core.engine_pid, signal.SIGSTOP)
        session.core.submit_raw(bytes(abi.Command(op=abi.Op.NOOP)))
    """,
    "engine killed": """
        os.kill(session.core.engine_pid, signal.SIGKILL)
    """,
    "nothing": "",
}


@pytest.mark.parametrize("moment", EXITS)
def test_interpreter_exit_with_work_in_flight(moment: str) -> None:
    script = f"""
        session = open_long()
        assert product_is_right(session)
        print(session.core.engine_pid, flush=True)
        {EXITS[moment].strip()}
        print(time.monotonic(), flush=True)
        """
    host = python(script)
    engine = int(read_line(host))
    exits_at = float(read_line(host))
    _, errors = finish(host)
    took = time.monotonic() - exits_at
    report(f"exit ({moment})", took)
    assert took < EXIT_S
    assert errors == ""
    wait_for(lambda: is_gone(engine), "the engine is gone", GENEROUS_S)


@pytest.mark.parametrize("to_all", [False, True], ids=["to the program", "to its process group"])
def test_ctrl_c_during_a_long_product(to_all: bool) -> None:
    host = python(
        """
        session = open_long()
        long = LongProduct(session.core, 3400)
        print(session.core.engine_pid, flush=True)
        try:
            long.run()
        except KeyboardInterrupt:
            print(time.monotonic(), flush=True)
        assert product_is_right(session)
        assert session.stats()["engine_starts"] == 1
        print(session.core.engine_pid)
        """
    )
    engine = int(read_line(host))
    wait_until_busy(engine)
    sent_at = time.monotonic()
    (os.killpg if to_all else os.kill)(host.pid, signal.SIGINT)
    took = float(read_line(host)) - sent_at
    report("Ctrl-C during a product", took)
    assert took < GENEROUS_S
    output, errors = finish(host)
    assert int(output) == engine, "the session is usable afterwards, with the same engine"
    assert errors == ""


def test_ctrl_c_in_the_main_thread_while_another_thread_reaps() -> None:
    host = python(
        """
        session = open_long()
        long = LongProduct(session.core, 3400)
        number = session.core.submit_raw(long.command())
        other = start(lambda: session.core.wait_raw(number))
        print(session.core.engine_pid, flush=True)
        try:
            session.core.noop()
        except KeyboardInterrupt:
            print(time.monotonic(), flush=True)
        assert other.join().error is None
        assert abi.Completion.from_buffer_copy(other.value).status == 0
        """
    )
    wait_until_busy(int(read_line(host)))
    sent_at = time.monotonic()
    host.send_signal(signal.SIGINT)
    took = float(read_line(host)) - sent_at
    report("Ctrl-C behind another thread", took)
    assert took < GENEROUS_S
    finish(host)
