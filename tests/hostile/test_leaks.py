"""Sessions, engines and failures come and go: descriptors, threads and mappings go with them."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import array, open_small, product_is_right, start, wait_for

from shmgemm import DeviceLost, SessionClosed, ShmgemmError, _core, hardware
from shmgemm.engine import default_engine_path
from shmgemm.session import Session

Check = Callable[[], None]


def holdings() -> tuple[int, int, int]:
    """Descriptors, threads, and mapped regions of this process."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text()
    descriptors, threads = (len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task"))
    return descriptors, threads, maps.count("memfd:shmgemm")


@pytest.fixture
def nothing_more() -> Check:
    """A check that the process holds no more than now."""
    with open_small() as session:  # what is opened once stays open
        assert product_is_right(session)
    del session
    before = holdings()

    def check() -> None:
        wait_for(lambda: holdings() <= before, f"{holdings()} back to {before}")

    return check


def test_sessions_opened_and_closed(nothing_more: Check) -> None:
    for _ in range(30):
        with open_small() as session:
            session.core.noop()
    del session
    nothing_more()


def test_sessions_dropped_without_closing(nothing_more: Check) -> None:
    parameters = hardware.load("tpu_v3", {}).parameters
    for _ in range(10):
        core = _core.Session(
            engine_path=default_engine_path(), parameters=parameters, region_bytes=8 << 20
        )
        core.noop()
    del core
    nothing_more()


def lose_engines(times: int) -> None:
    with open_small() as session:
        for _ in range(times):
            assert product_is_right(session)
            os.kill(session.core.engine_pid, signal.SIGKILL)
            wait_for(lambda: session.core.engine_pid == 0, "death noticed")


def test_engines_lost(nothing_more: Check) -> None:
    lose_engines(15)
    nothing_more()


def test_sessions_that_could_not_be_opened(nothing_more: Check, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", "/bin/true", "/bin/false"):
        for _ in range(5):
            with pytest.raises(ShmgemmError):
                open_small(engine_path=path)
    for _ in range(5):
        with pytest.raises(ValueError, match="power of two"):
            open_small(region=5 << 20)
    nothing_more()


def test_a_tensor_keeps_its_region_and_lets_go_of_it(nothing_more: Check) -> None:
    session = open_small()
    matrix, block = array(session.core, 32, 32)
    session.close()
    del session, block
    matrix[:] = 1.0
    assert holdings()[2] > 0
    del matrix
    nothing_more()


def test_sessions_closed_under_the_feet_of_many_threads(nothing_more: Check) -> None:
    for _ in range(10):
        session = open_small()

        def products(session: Session = session) -> None:
            with contextlib.suppress(SessionClosed, DeviceLost):
                while True:
                    assert product_is_right(session, 24)

        outcomes = [start(products) for _ in range(6)]
        time.sleep(0.03)
        session.close()
        for outcome in outcomes:
            assert outcome.join().error is None
    del session, products, outcomes, outcome
    nothing_more()
