"""One of several engines dies: its devices' ops are lost, the other devices go on."""

from __future__ import annotations

import os
import signal

import pytest
from harness import (
    LongProduct,
    finish,
    is_gone,
    open_long,
    open_small,
    product,
    product_is_right,
    python,
    start,
    wait_for,
    wait_until_busy,
)

from shmgemm import DeviceLost, DeviceTimeout


def test_killed_in_mid_op_while_the_others_compute() -> None:
    with open_long(devices=3, processes=3, threads=1) as session:
        long = LongProduct(session.core, device=1)
        pids = session.engine_pids

        def products(device: int) -> int:
            for size in range(16, 216):
                product(session, device, size)
            return device

        others = [start(lambda device=device: products(device)) for device in (0, 2)]
        lost = start(long.run)
        wait_until_busy(pids[1])
        os.kill(pids[1], signal.SIGKILL)
        lost.join()
        assert isinstance(lost.error, DeviceLost)
        assert f"the engine of device 1 (pid {pids[1]}) is gone" in str(lost.error)
        for other in others:
            assert other.join().error is None
        assert is_gone(pids[1])
        assert session.engine_pids == [pids[0], 0, pids[2]]
        last = max(product(session, device, 20).end_cycles for device in (0, 2))
        again = product(session, 1, 33)
        assert again.start_cycles >= last, "simulated time goes on in the new engine"
        assert (long.a == 1.0).all(), "tensors in the region survive"
        now = session.engine_pids
        assert (now[0], now[2]) == (pids[0], pids[2]) and now[1] not in (0, pids[1])
        assert session.stats()["engine_starts"] == 4


def test_stopped_it_is_a_timeout_of_its_own_device() -> None:
    with open_small(devices=3, processes=3, timeout=0.5) as session:
        pids = session.engine_pids
        os.kill(pids[2], signal.SIGSTOP)
        stuck = start(lambda: product(session, 2, 20))
        for size in range(16, 48):
            product(session, size % 2, size)
        stuck.join()
        assert isinstance(stuck.error, DeviceTimeout)
        assert f"the engine of device 2 (pid {pids[2]})" in str(stuck.error)
        assert is_gone(pids[2])
        product(session, 2, 20)
        assert session.engine_pids[:2] == pids[:2]


def test_each_may_die_again_and_again() -> None:
    with open_small(devices=3, processes=3) as session:
        last = 0
        for turn in range(6):
            os.kill(session.engine_pids[turn % 3], signal.SIGKILL)
            wait_for(lambda turn=turn: session.engine_pids[turn % 3] == 0, "death noticed")
            for device in range(3):
                done = product(session, device, 16 + turn)
                assert done.start_cycles >= last
                last = done.end_cycles
        assert session.stats()["engine_starts"] == 9


def test_time_does_not_go_back_where_there_is_one_engine() -> None:
    with open_small() as session:
        before = product(session, 0, 30).end_cycles
        os.kill(session.core.engine_pid, signal.SIGKILL)
        wait_for(lambda: session.core.engine_pid == 0, "death noticed")
        assert product(session, 0, 30).start_cycles == before


def test_a_flush_reaches_the_living() -> None:
    with open_small(devices=2, processes=2) as session:
        end = product(session, 1, 30).end_cycles
        os.kill(session.engine_pids[0], signal.SIGKILL)
        wait_for(lambda: session.engine_pids[0] == 0, "death noticed")
        assert session.core.flush().end_cycles == end
        assert product_is_right(session)


@pytest.mark.parametrize("moment", ["idle", "busy"])
def test_a_host_that_dies_takes_all_with_it(moment: str) -> None:
    host = python(f"""
        session = open_long(devices=3, processes=3)
        print(*session.engine_pids, flush=True)
        if {moment!r} == "busy":
            LongProduct(session.core, 3400).run()
        time.sleep(60)
        """)
    assert host.stdout is not None
    pids = [int(word) for word in host.stdout.readline().split()]
    assert len(pids) == 3
    if moment == "busy":
        wait_until_busy(pids[0])
    os.kill(host.pid, signal.SIGKILL)
    for pid in pids:
        wait_for(lambda pid=pid: is_gone(pid), "engine gone")
    host.communicate(timeout=20)


def test_a_program_that_ends_leaves_nothing() -> None:
    output, errors = finish(
        python("""
        session = open_small(devices=3, processes=3)
        os.kill(session.engine_pids[1], signal.SIGKILL)
        print("right" if product_is_right(session) else "wrong")
        """)
    )
    assert (output.strip(), errors) == ("right", "")
