"""A region that is full or of a wrong size, bad presets, refused records, and the quarantine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from harness import (
    FLOAT32,
    LongProduct,
    array,
    gemm,
    open_long,
    open_small,
    product_is_right,
    python,
    read_line,
    wait_for,
    wait_until_busy,
)

import shmgemm
from shmgemm import DeviceTimeout, RegionFull, Unsupported, abi
from shmgemm.abi import Flag, Op, Status
from shmgemm.session import Session


def test_full_region_says_how_full_and_works_again() -> None:
    with open_small() as session:
        blocks = [session.core.empty((256, 1024), FLOAT32) for _ in range(5)]  # 5 of 6 MiB
        with pytest.raises(RegionFull) as caught:
            session.core.empty((512, 1024), FLOAT32)
        assert isinstance(caught.value, MemoryError)
        for number in (512 * 1024 * 4, 5 << 20, 6 << 20, 1 << 20):
            assert str(number) in str(caught.value)
        assert "region=" in str(caught.value)
        del blocks
        session.core.empty((512, 1024), FLOAT32)
        assert product_is_right(session)


def test_operands_that_cannot_be_staged() -> None:
    with open_small() as session:
        large = np.zeros((1500, 1500), np.float32)
        with pytest.raises(RegionFull):
            gemm(session.core, large, large, large.copy())
        assert session.stats()["heap_used_bytes"] == 0, "what was staged already is let go of"
        with pytest.raises(RegionFull):  # strict
            shmgemm.gemm(large, large)
        assert product_is_right(session)


def test_fall_back_to_the_cpu_is_never_silent() -> None:
    with open_small(strict=False):
        a = np.full((1500, 1500), 0.5, np.float32)
        with pytest.warns(shmgemm.FallbackWarning, match=r"1500x1500 @ 1500x1500.*RegionFull"):
            c = shmgemm.gemm(a, a)
        assert np.allclose(c, 375.0)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (5 << 20, ["5242880", "power of two"]),
        (3 << 20, ["3145728", "4 MiB"]),
        ("1MiB", ["1048576", "4 MiB"]),
        (0, ["region", "0"]),
        (-4 << 20, ["region", "-4194304"]),
        ("12 parsecs", ["region", "12 parsecs"]),
    ],
)
def test_region_of_an_impossible_size(region: int | str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        open_small(region=region)
    for word in words:
        assert word in str(caught.value)


def test_region_larger_than_memory() -> None:
    with pytest.raises(RegionFull, match=r"67108864 MiB asked for, .* only \d+ MiB"):
        open_small(region=1 << 46)


PRESETS = [
    ({"rows": -1}, ["rows", "-1"]),
    ({"rows": 0}, ["rows", "0"]),
    ({"rwos": 128}, ["rwos", "rows"]),
    ({"clock": "940MiB"}, ["clock", "940MiB", "Hz"]),
    ({"clock": "-1MHz"}, ["clock", "-1MHz"]),
    ({"model": "none_such"}, ["none_such", "scalesim_ws"]),
]


@pytest.mark.parametrize(("parameters", "words"), PRESETS)
def test_bad_parameter(parameters: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        open_small(**parameters)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("parameters", "words"), PRESETS)
def test_bad_preset_file(parameters: dict[str, object], words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    model = {} if "model" in parameters else {"model": "scalesim_ws"}
    path.write_text(
        "[hardware]\n"
        + "".join(f"{key} = {value!r}\n" for key, value in {**model, **parameters}.items())
    )
    with pytest.raises(ValueError) as caught:
        open_small(hardware=path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_preset_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"none_such.*tpu_v3"):
        open_small(hardware="none_such")
    with pytest.raises((ValueError, FileNotFoundError), match=r"nowhere\.toml"):
        open_small(hardware="/tmp/nowhere.toml")


def good_command(session: Session) -> tuple[abi.Command, list[object]]:
    """A small GEMM, and what must stay alive while it runs."""
    (a, a_block), (b, b_block), (_, c_block) = (array(session.core, 16, 16) for _ in range(3))
    a[:] = 1.0
    b[:] = 1.0
    command = abi.Command(op=Op.GEMM, dtype_in=FLOAT32, dtype_out=FLOAT32, flags=Flag.FLUSH)
    command.m = command.n = command.k = 16
    command.lda = command.ldb = command.ldc = 16
    command.batch = 1
    command.a, command.b, command.c = a_block.offset, b_block.offset, c_block.offset
    return command, [a_block, b_block, c_block]


REFUSALS = [
    ({"op": 200, "dtype_in": 0, "dtype_out": 0}, Status.BAD_OP),
    ({"dtype_out": 4}, Status.BAD_DTYPE),
    ({"flags": 0x1000}, Status.BAD_FLAGS),
    ({"device": 1}, Status.BAD_DEVICE),
    ({"k": 0}, Status.BAD_SHAPE),
    ({"lda": 15}, Status.BAD_LEADING_DIMENSION),
    ({"a": 0}, Status.OUT_OF_BOUNDS),
    ({"b": 2**64 - 4}, Status.OUT_OF_BOUNDS),
    ({"m": 2**31 - 1, "lda": 2**31 - 1}, Status.OUT_OF_BOUNDS),
    ({"bias": 64}, Status.BAD_ARGUMENT),
    ({"report": 1}, Status.BAD_REPORT),
    ({"op": int(Op.ECHO), "dtype_in": 0, "dtype_out": 0, "flags": 0x30}, Status.BAD_FLAGS),
    ({"flags": int(Flag.BIT_ACCURATE | Flag.FLUSH), "k": 0}, Status.BAD_SHAPE),
]


@pytest.mark.parametrize(("changes", "status"), REFUSALS)
def test_refused_record(changes: dict[str, int], status: Status) -> None:
    with open_small() as session:
        command, _ = good_command(session)
        for name, value in changes.items():
            setattr(command, name, value)
        number = session.core.submit_raw(bytes(command))
        completion = abi.Completion.from_buffer_copy(session.core.wait_raw(number))
        assert Status(completion.status) == status
        assert product_is_right(session)
        assert session.stats()["engine_starts"] == 1


def test_misaligned_and_overlapping_records() -> None:
    with open_small() as session:
        for change, status in (("a", Status.BAD_ALIGNMENT), ("c", Status.OVERLAP)):
            command, _ = good_command(session)
            if change == "a":
                command.a += 2
            else:
                command.c = command.a + 64
            number = session.core.submit_raw(bytes(command))
            completion = abi.Completion.from_buffer_copy(session.core.wait_raw(number))
            assert Status(completion.status) == status


@pytest.mark.parametrize("size", [0, 127, 129])
def test_record_of_a_wrong_length(size: int) -> None:
    with open_small() as session, pytest.raises(Unsupported, match=rf"128 bytes, {size} given"):
        session.core.submit_raw(b"x" * size)


def test_waiting_for_what_was_never_submitted() -> None:
    with open_small() as session:
        for number in (0, 1, 2**63, 2**64 - 1):
            with pytest.raises(Unsupported, match=rf"{number} is not in flight"):
                session.core.wait_raw(number)


def test_results_nobody_collects_run_out_of_slots_with_a_message() -> None:
    with open_small() as session:
        noop = bytes(abi.Command(op=Op.NOOP))
        ids = []
        for _ in range(abi.RING_SLOTS - 1):
            ids.append(session.core.submit_raw(noop))
        with pytest.raises(Unsupported, match=r"255 results.*wait\(\)"):
            session.core.submit_raw(noop)
        for number in ids:
            session.core.wait_raw(number)
        assert product_is_right(session)


@pytest.mark.parametrize("operand", ["a", "b"])
def test_result_over_an_operand_in_the_region_is_right(operand: str) -> None:
    """What a command may not say, the client stages."""
    with open_small() as session:
        random = np.random.default_rng(5)
        both = {name: array(session.core, 24, 24)[0] for name in "ab"}
        for matrix in both.values():
            matrix[:] = random.standard_normal(matrix.shape)
        expected = both["a"].astype(np.float64) @ both["b"]
        gemm(session.core, both["a"], both["b"], both[operand])
        assert np.allclose(both[operand], expected, atol=1e-4)


def free_bytes(session: Session) -> int:
    """By taking all there is, in blocks of one page, and giving it back."""
    blocks = []
    try:
        while True:
            blocks.append(session.core.empty((4096,), int(abi.Dtype.INT8)))
    except RegionFull:
        return 4096 * len(blocks)


def overlaps(session: Session, begin: int, size: int) -> bool:
    """Whether any block that can still be had lies in these bytes."""
    blocks = []
    try:
        while True:
            blocks.append(session.core.empty((65536,), int(abi.Dtype.INT8)))
    except RegionFull:
        return any(x.offset < begin + size and begin < x.offset + 65536 for x in blocks)


def abandoned_product(session: Session) -> tuple[int, int]:
    """A long product given up by its caller, who then drops C: its offset and bytes."""
    long = LongProduct(session.core)
    place = long.c_block.offset, long.c_block.nbytes
    number = session.core.submit_raw(long.command())
    wait_until_busy(session.core.engine_pid)
    with pytest.raises(DeviceTimeout, match="deadline"):
        session.core.wait_raw(number, 0.05)
    return place


def test_block_of_an_abandoned_product_is_not_reused_before_its_completion() -> None:
    with open_long() as session:
        everything = free_bytes(session)
        begin, size = abandoned_product(session)
        assert session.stats()["heap_used_bytes"] >= size
        assert not overlaps(session, begin, size)
        session.core.flush()  # completes after it, in order
        wait_for(lambda: session.stats()["heap_used_bytes"] == 0, "quarantine ends")
        assert overlaps(session, begin, size)
        assert free_bytes(session) == everything
        assert product_is_right(session)


def test_block_of_an_abandoned_product_is_not_reused_before_its_engine_is_dead() -> None:
    with open_long(timeout=60) as session:
        engine = session.core.engine_pid
        begin, size = abandoned_product(session)
        os.kill(engine, signal.SIGSTOP)
        time.sleep(0.3)
        assert not overlaps(session, begin, size)
        os.kill(engine, signal.SIGKILL)
        wait_for(lambda: session.core.engine_pid == 0, "death noticed")
        assert session.stats()["heap_used_bytes"] == 0
        assert overlaps(session, begin, size)
        assert product_is_right(session)


def test_blocks_of_an_interrupted_product_are_not_reused() -> None:
    """Ctrl-C: what the call staged and what the caller drops stay put until the engine is done."""
    host = python(
        """
        session = open_long()
        print(session.core.engine_pid, flush=True)
        a = np.ones((64, 8192), np.float32)  # staged: 2 MiB
        long = LongProduct(session.core)
        entry = long.rows * long.rows
        held = long.c_block.nbytes + a.nbytes + long.b_block.nbytes
        try:
            session.core.gemm(
                "long", 64, 64, 8192, long.batch, FLOAT32, FLOAT32,
                (a.ctypes.data, 0, 8192, 1), (long.b_block.ptr, 0, 64, 1),
                (long.c_block.ptr, entry, 64, 1))
        except KeyboardInterrupt:
            pass
        del long
        import gc
        gc.collect()
        print("held" if session.stats()["heap_used_bytes"] >= held else "let go", flush=True)
        session.core.flush()
        wait_for(lambda: session.stats()["heap_used_bytes"] == 0, "quarantine ends")
        print("done", flush=True)
        """
    )
    wait_until_busy(int(read_line(host)))
    host.send_signal(signal.SIGINT)
    assert read_line(host) == "held"
    assert read_line(host) == "done"
    host.communicate(timeout=20)


def test_blocks_outlive_their_session() -> None:
    session = open_small()
    matrix, _block = array(session.core, 64, 64)
    matrix[:] = 3.0
    session.close()
    assert (matrix == 3.0).all()
    with pytest.raises(shmgemm.SessionClosed):
        session.core.empty((4,), FLOAT32)
