"""Two processes on one engine: both are served, and neither takes the other along."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import (
    FLOAT32,
    GENEROUS_S,
    LongProduct,
    array,
    finish,
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
from shmgemm import _core, _runtime, abi

LONG = 300  # of a LongProduct: some tenths of a second


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of these tests alone, and with a short name, as sockets need."""
    folder = Path(tempfile.mkdtemp(prefix="attach-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder / "shmgemm"
    shutil.rmtree(folder)


@pytest.fixture(params=["embedded", "sst"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sst" and shutil.which("sst-config") is None:
        pytest.skip("needs sst-config")
    monkeypatch.setenv("SHMGEMM_ENGINE", request.param)
    return str(request.param)


ATTACH = """
session = shmgemm.attach("train", strict=True)
print("attached", flush=True)
"""


def attached_python(script: str) -> subprocess.Popen[str]:
    return python(ATTACH + textwrap.dedent(script))


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_both_compute_at_once_and_are_right() -> None:
    with open_small(name="train") as session:
        engine_pid = session.core.engine_pid
        child = attached_python(
            """
            for i in range(300):
                assert product_is_right(session, 16 + i % 40), i
            assert session.stats()["ops"] == 300
            assert session.stats()["engine_starts"] == 0
            print("right")
            """
        )
        assert read_line(child) == "attached"
        done = 0
        while child.poll() is None:
            assert product_is_right(session, 16 + done % 40)
            done += 1
        assert "right" in finish(child)[0]
        assert done > 0
        assert session.core.engine_pid == engine_pid
        assert session.info()["ops"] == 300 + done, "one engine has served both"


def test_it_knows_what_the_engine_says() -> None:
    with open_small(name="train", hardware="tpu_v4", devices=2) as owner:
        with shmgemm.attach("train") as session:
            assert shmgemm.current() is session
            assert session.hardware == owner.hardware
            assert (session.devices, session.clock_hz) == (2, owner.clock_hz)
            assert session.info(1)["model"] == owner.hardware.model
            assert product_is_right(session)
        assert shmgemm.current() is owner
        with pytest.raises(ValueError, match=r"'train' has other hardware than tpu_v3: .*clock"):
            shmgemm.attach("train", hardware="tpu_v3")
        with shmgemm.attach("train", hardware="tpu_v4"):
            pass


def test_hardware_of_no_preset(runtime_folder: Path) -> None:
    path = runtime_folder / "train.sock"
    with open_small(name="train", rows=64) as owner, shmgemm.attach(path) as session:
        assert session.hardware.parameters == owner.hardware.parameters
        assert session.hardware.digest == owner.hardware.digest
        assert session.hardware.name == "attached"


def test_tensors_of_its_own_arena_and_the_profile() -> None:
    with open_small(name="train", clients=2) as owner, shmgemm.attach("train") as session:
        assert session.stats()["heap_bytes"] <= owner.stats()["heap_bytes"]
        a, a_block = array(session.core, 8, 8)
        b, b_block = array(session.core, 8, 8)
        c, c_block = array(session.core, 8, 8)
        _, owners_block = array(owner.core, 8, 8)
        a[:], b[:] = 1.0, 2.0
        assert session.core.contains(a_block.ptr, 256)
        assert not session.core.contains(owners_block.ptr, 256)
        session.core.set_profiling(True)
        rows = (8, 1)
        session.core.gemm(
            "mine", 8, 8, 8, 1, FLOAT32, FLOAT32,
            (a_block.ptr, 0, *rows), (b_block.ptr, 0, *rows), (c_block.ptr, 0, *rows),
        )  # fmt: skip
        assert (c == 16.0).all()
        (record,) = session.core.take_records()
        assert record.end_cycles > record.start_cycles
        assert session.stats()["bytes_copied"] == 0
        assert owner.stats()["ops"] == 0


def test_one_place_too_few() -> None:
    with open_small(name="train", clients=2) as owner:
        with shmgemm.attach("train") as first, shmgemm.attach("train"):
            with pytest.raises(shmgemm.RegionFull, match="clients=2"):
                shmgemm.attach("train")
            assert product_is_right(first)
            assert product_is_right(owner)
        with shmgemm.attach("train") as session:
            assert product_is_right(session)


def test_a_tensor_keeps_the_place_of_its_session() -> None:
    with open_small(name="train") as owner:
        session = shmgemm.attach("train")
        held, block = array(session.core, 64)
        session.close()
        held[:] = 3.0
        with pytest.raises(shmgemm.RegionFull, match="tensors"):
            shmgemm.attach("train")
        assert product_is_right(owner)
        assert (held == 3.0).all()
        del held, block
        with shmgemm.attach("train") as again:
            assert product_is_right(again)


def test_names(runtime_folder: Path) -> None:
    with pytest.raises(shmgemm.DeviceLost, match=r"no session 'train'.*no session with a name"):
        shmgemm.attach("train")
    with open_small(name="train"), open_small(name="other"):
        with pytest.raises(shmgemm.DeviceLost, match=r"did you mean train\? .*: other, train"):
            shmgemm.attach("trian")
        with pytest.raises(shmgemm.Unsupported, match="in use by another engine"):
            open_small(name="train")
        for bad in ("", ".hidden", "a b", "x" * 65):
            with pytest.raises(ValueError, match="letters"):
                shmgemm.attach(bad)
    assert list(runtime_folder.glob("*.sock")) == []
    with pytest.raises(ValueError, match="without a name"):
        open_small(clients=2)
    with pytest.raises(ValueError, match="from 1 to 7"):
        open_small(name="train", clients=8)
    with pytest.raises(shmgemm.DeviceLost, match="nowhere"):
        shmgemm.attach("/nowhere/at/all.sock")


def test_nothing_listens_without_a_name(runtime_folder: Path) -> None:
    with open_small():
        assert not runtime_folder.exists()


def test_killed_in_the_middle_of_an_op() -> None:
    with open_small(name="train", region="128MiB") as session:
        engine_pid = session.core.engine_pid
        held, block = array(session.core, 1000)
        held[:] = 5.0
        for _ in range(3):
            child = attached_python(
                f"""
                long = LongProduct(session.core, {LONG})
                print("starts", flush=True)
                long.run()
                time.sleep(60)
                """
            )
            assert read_line(child) == "attached"
            assert read_line(child) == "starts"
            wait_until_busy(engine_pid)
            kill(child)
            assert product_is_right(session)
        with shmgemm.attach("train") as attached:
            assert product_is_right(attached)
            assert attached.stats()["heap_used_bytes"] == 0
        assert session.core.engine_pid == engine_pid
        assert session.stats()["engine_starts"] == 1
        assert (held == 5.0).all()
        del block


def test_fifty_that_die() -> None:
    """By turns idle, with commands that nobody flushed, and with one that waits for ever."""
    with open_small(name="train") as session:
        engine_pid = session.core.engine_pid
        for round in range(50):
            pid = os.fork()
            if pid == 0:
                die_attached(round)
            assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 0
            if round % 10 == 0:
                assert product_is_right(session)
        assert session.core.engine_pid == engine_pid
        assert session.info()["devices"] == 1


def die_attached(round: int) -> None:
    try:
        core = _core.Session.attach(path=str(_runtime.socket_of("train")))
        if round % 3 == 1:
            for _ in range(50):
                core.submit_raw(bytes(abi.Command(op=abi.Op.NOOP)))
        if round % 3 == 2:
            core.submit_raw(bytes(abi.Command(op=abi.Op.COMPUTE, flags=abi.Flag.FLUSH)))
        core.noop()
    except BaseException as error:
        print(error, flush=True)
        os._exit(1)
    os._exit(0)


def test_the_engine_is_killed_and_both_are_told() -> None:
    with open_small(name="train", region="128MiB") as owner:
        attached = shmgemm.attach("train", strict=True)
        long, other = LongProduct(owner.core, 2 * LONG), LongProduct(attached.core, LONG)
        mine, theirs = start(long.run), start(other.run)
        wait_until_busy(owner.core.engine_pid)
        killed_at = time.monotonic()
        os.kill(owner.core.engine_pid, signal.SIGKILL)
        for outcome in (mine, theirs):
            outcome.join()
            report("loss raised", outcome.ended_at - killed_at)
            assert isinstance(outcome.error, shmgemm.DeviceLost)
            assert outcome.ended_at - killed_at < GENEROUS_S
        with pytest.raises(shmgemm.DeviceLost, match="attach again"):
            product_is_right(attached)
        assert product_is_right(owner), "its next op brings a new engine"
        del other, theirs, outcome
        gc.collect()  # the error's frames refer to each other, and to the tensors
        with shmgemm.attach("train") as again:
            assert product_is_right(again)
        attached.close()
        assert product_is_right(owner)


def test_the_owner_closes_its_session() -> None:
    owner = open_small(name="train")
    child = attached_python(
        """
        begin = time.monotonic()
        try:
            while time.monotonic() < begin + 30:
                session.core.noop()
        except shmgemm.DeviceLost as error:
            print(error, flush=True)
        """
    )
    assert read_line(child) == "attached"
    time.sleep(0.2)
    closed_at = time.monotonic()
    owner.close()
    assert "attach again" in read_line(child)
    report("told of the end", time.monotonic() - closed_at)
    assert time.monotonic() - closed_at < GENEROUS_S
    finish(child)


def test_the_owner_is_killed() -> None:
    child = python(
        'session = open_small(name="train")\nprint("open", flush=True)\ntime.sleep(60)\n'
    )
    assert read_line(child) == "open"
    with shmgemm.attach("train", strict=True) as session:
        assert product_is_right(session)
        held, _block = array(session.core, 10)
        held[:] = 1.0
        kill(child)

        def lost() -> bool:
            try:
                session.core.noop()
            except shmgemm.DeviceLost:
                return True
            return False

        report("told of the end", wait_for(lost, "the loss", 10))
        assert (held == 1.0).all(), "its tensors stay"
        with pytest.raises(shmgemm.DeviceLost, match="attach again"):
            session.core.empty((4,), FLOAT32)


def test_scribbling_over_ones_own_rings_is_ones_own_loss() -> None:
    with open_small(name="train") as owner, shmgemm.attach("train") as session:
        pair = np.memmap(f"/proc/self/fd/{session.core.region_fd}", np.uint8, "r+")
        at = 4096 + abi.QUEUE_PAIR_BYTES  # queue pair 1
        random = np.random.default_rng(1)
        for _ in range(20):
            pair[at : at + 256 * 128] = random.integers(0, 256, 256 * 128, np.uint8)
            assert product_is_right(owner)
        del pair
        assert session.stats()["commands"] == 0
