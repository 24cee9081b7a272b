"""The kill matrix: the engine, or its host, dies or stops at every moment that matters."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
from harness import (
    GENEROUS_S,
    LongProduct,
    finish,
    is_gone,
    open_long,
    open_small,
    product_is_right,
    python,
    read_line,
    report,
    start,
    wait_for,
    wait_until_busy,
)

from shmgemm import DeviceLost, DeviceTimeout, abi


def test_killed_idle_the_next_product_runs_on_a_fresh_engine() -> None:
    with open_small() as session:
        assert product_is_right(session)
        first = session.core.engine_pid
        os.kill(first, signal.SIGKILL)
        report("death noticed", wait_for(lambda: session.core.engine_pid == 0, "death noticed"))
        assert product_is_right(session)
        assert session.core.engine_pid not in (0, first)
        assert session.stats()["engine_starts"] == 2
        assert is_gone(first)


def test_killed_just_before_a_product_it_is_lost_or_right() -> None:
    with open_small() as session:
        for _ in range(5):
            assert product_is_right(session)
            os.kill(session.core.engine_pid, signal.SIGKILL)
            begin = time.monotonic()
            loss = None
            try:
                assert product_is_right(session)
            except DeviceLost as error:
                loss = str(error)
            report("lost" if loss else "right", time.monotonic() - begin)
            assert time.monotonic() - begin < GENEROUS_S
            assert loss is None or "Killed" in loss


def test_killed_in_the_middle_of_a_product() -> None:
    with open_long() as session:
        long = LongProduct(session.core)
        engine = session.core.engine_pid
        blocked = start(long.run)
        wait_until_busy(engine)
        assert blocked.thread.is_alive()
        killed_at = time.monotonic()
        os.kill(engine, signal.SIGKILL)
        blocked.join()
        report("loss raised", blocked.ended_at - killed_at)
        assert blocked.ended_at - killed_at < GENEROUS_S
        assert isinstance(blocked.error, DeviceLost)
        assert str(engine) in str(blocked.error) and "Killed" in str(blocked.error)
        assert is_gone(engine)
        assert product_is_right(session)
        assert (long.a == 1.0).all(), "tensors in the region survive their engine"


def test_killed_between_publish_and_completion() -> None:
    with open_small() as session:
        engine = session.core.engine_pid
        os.kill(engine, signal.SIGSTOP)
        ids = [session.core.submit_raw(bytes(abi.Command(op=abi.Op.NOOP))) for _ in range(20)]
        killed_at = time.monotonic()
        os.kill(engine, signal.SIGKILL)
        for number in ids:
            with pytest.raises(DeviceLost, match=str(engine)):
                session.core.wait_raw(number)
        report("20 losses raised", time.monotonic() - killed_at)
        assert time.monotonic() - killed_at < GENEROUS_S
        assert product_is_right(session)


def test_what_was_completed_before_the_death_counts() -> None:
    with open_small() as session:
        echo = abi.Command(op=abi.Op.ECHO, flags=abi.Flag.FLUSH)
        echo.arg[0] = 77
        number = session.core.submit_raw(bytes(echo))
        session.core.noop()
        os.kill(session.core.engine_pid, signal.SIGKILL)
        wait_for(lambda: session.core.engine_pid == 0, "death noticed")
        completion = abi.Completion.from_buffer_copy(session.core.wait_raw(number))
        assert (completion.status, completion.busy_cycles) == (abi.Status.OK, 77)


def test_killed_again_and_again_from_many_threads() -> None:
    with open_small() as session:

        def products() -> tuple[int, int]:
            right = lost = 0
            for size in range(16, 76):
                try:
                    assert product_is_right(session, size)
                    right += 1
                except DeviceLost:
                    lost += 1
            return right, lost

        outcomes = [start(products) for _ in range(4)]
        for _ in range(5):
            time.sleep(0.05)
            if pid := session.core.engine_pid:
                os.kill(pid, signal.SIGKILL)
        for outcome in outcomes:
            assert outcome.join().error is None
            assert sum(outcome.value) == 60
        print("right, lost:", [outcome.value for outcome in outcomes])
        assert product_is_right(session)


def test_stopped_engine_is_a_timeout_and_is_replaced() -> None:
    with open_small(timeout=0.5) as session:
        engine = session.core.engine_pid
        os.kill(engine, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(DeviceTimeout, match=rf"{engine}.*no sign of life for 500 ms"):
            product_is_right(session)
        report("timeout of 500 ms raised", time.monotonic() - begin)
        assert 0.4 < time.monotonic() - begin < 0.5 + GENEROUS_S
        assert is_gone(engine)
        assert product_is_right(session)


def test_engine_stopped_in_the_middle_of_a_product() -> None:
    with open_long(timeout=0.5) as session:
        long = LongProduct(session.core)
        engine = session.core.engine_pid
        blocked = start(long.run)
        wait_until_busy(engine)
        os.kill(engine, signal.SIGSTOP)
        blocked.join()
        assert isinstance(blocked.error, DeviceTimeout)
        assert is_gone(engine)
        assert product_is_right(session)


def test_a_long_product_is_not_a_timeout() -> None:
    with open_long(timeout=0.3) as session:
        long = LongProduct(session.core)
        begin = time.monotonic()
        long.run()
        report("product with a timeout of 300 ms", time.monotonic() - begin)
        assert (long.c == 2.0 * long.inner).all()
        assert session.stats()["engine_starts"] == 1


def test_idle_while_stopped_is_not_a_timeout() -> None:
    with open_small(timeout=0.3) as session:
        engine = session.core.engine_pid
        os.kill(engine, signal.SIGSTOP)
        time.sleep(0.7)
        os.kill(engine, signal.SIGCONT)
        assert product_is_right(session)
        assert session.core.engine_pid == engine


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("moment", ["idle", "busy"])
def test_host_dies_and_the_engine_with_it(signal_name: str, moment: str) -> None:
    host = python(
        f"""
        session = open_long()
        product_is_right(session)
        print(session.core.engine_pid, flush=True)
        if {moment!r} == "busy":
            for _ in range(20):
                LongProduct(session.core, 3400).run()
        time.sleep(60)
        """
    )
    engine = int(read_line(host))
    if moment == "busy":
        wait_until_busy(engine)
    os.kill(host.pid, getattr(signal, signal_name))
    gone = wait_for(lambda: is_gone(engine), "engine gone")
    report(f"engine gone after its host ({moment})", gone)
    assert gone < GENEROUS_S
    host.communicate(timeout=20)


def test_session_closed_in_the_middle_of_a_product() -> None:
    session = open_long()
    long = LongProduct(session.core, 3400)
    engine = session.core.engine_pid
    blocked = start(long.run)
    wait_until_busy(engine)
    begin = time.monotonic()
    session.close()
    report("close", time.monotonic() - begin)
    assert time.monotonic() - begin < 0.5 + GENEROUS_S
    blocked.join(GENEROUS_S)
    assert "closed" in str(blocked.error)
    assert is_gone(engine)
    assert long.a[0, 0] == 1.0, "blocks stay valid"


def test_example_leaves_an_empty_machine() -> None:
    """A strict host that loses its engine and exits cleanly says nothing on stderr."""
    output, errors = finish(
        python(
            """
            session = open_small()
            os.kill(session.core.engine_pid, signal.SIGKILL)
            try:
                product_is_right(session)
            except shmgemm.DeviceLost:
                pass
            print("right" if product_is_right(session) else "wrong")
            """
        )
    )
    assert output.strip() == "right"
    assert errors == ""


def test_values_of_a_replaced_engine_are_those_of_the_first() -> None:
    with open_long() as session:
        long = LongProduct(session.core, 8)
        random = np.random.default_rng(3)
        long.a[:] = random.standard_normal(long.a.shape)
        long.b[:] = random.standard_normal(long.b.shape)
        first = long.run()
        bits = long.c.copy()
        os.kill(session.core.engine_pid, signal.SIGKILL)
        wait_for(lambda: session.core.engine_pid == 0, "death noticed")
        second = long.run()
        assert np.array_equal(long.c.view(np.uint32), bits.view(np.uint32))
        assert first.end_cycles - first.start_cycles == second.end_cycles - second.start_cycles
