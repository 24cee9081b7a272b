"""Engines that are missing, of another version, or that answer nonsense."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import fake_engine
import pytest
from harness import (
    GENEROUS_S,
    array,
    is_gone,
    open_small,
    product_is_right,
    python,
    read_line,
    report,
    sessions_engine,
    wait_for,
)

import shmgemm
from shmgemm import DeviceLost, ProtocolError, ShmgemmError, Unsupported, abi
from shmgemm.engine import default_engine_path


def test_missing_engine_names_the_path_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "shmgemm-engine"
    with pytest.raises(Unsupported) as caught:
        open_small(engine_path=path)
    message = str(caught.value)
    assert str(path) in message and "No such file" in message
    assert "SHMGEMM_ENGINE_PATH" in message


def test_engine_that_may_not_be_run(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_text("not a program")
    with pytest.raises(Unsupported, match="Permission denied"):
        open_small(engine_path=path)


@pytest.mark.parametrize(("program", "status"), [("/bin/true", 0), ("/bin/false", 1)])
def test_program_that_is_no_engine(program: str, status: int) -> None:
    with pytest.raises(DeviceLost, match=rf"{program}.*exit status {status}"):
        open_small(engine_path=program)


def test_engine_of_another_abi_version(tmp_path: Path) -> None:
    path = fake_engine.install(tmp_path, "control", "abi_major", "2")
    with pytest.raises(ProtocolError, match=r"ABI version 2, this build speaks 1"):
        open_small(engine_path=path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("control", "kind", "77"), r"control record 77 where READY was expected"),
        (("control", "text_bytes", "100000"), r"control record"),
        (("control", "short"), r"control record of 5 bytes, 256 expected"),
    ],
)
def test_engine_whose_first_words_are_nonsense(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ProtocolError, match=message):
        open_small(engine_path=fake_engine.install(tmp_path, *words))


def test_ctrl_c_while_an_engine_does_not_start(tmp_path: Path) -> None:
    path = fake_engine.install(tmp_path, "silent")
    host = python(
        f"""
        print("begin", flush=True)
        try:
            open_small(engine_path={str(path)!r})
        except KeyboardInterrupt:
            print(time.monotonic(), flush=True)
        """
    )
    read_line(host)
    time.sleep(1.0)
    sent_at = time.monotonic()
    host.send_signal(signal.SIGINT)
    took = float(read_line(host)) - sent_at
    report("Ctrl-C at start", took)
    assert took < GENEROUS_S
    assert host.wait(20) == 0


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("unknown_id", "which is not in flight"),
        ("id_0", "id 0 is reserved"),
        ("generation", "another engine generation"),
        ("status", "not a valid record"),
        ("backwards", "out of range"),
        ("report", "report block"),
    ],
)
def test_engine_that_answers_nonsense(behaviour: str, message: str, tmp_path: Path) -> None:
    with open_small(engine_path=fake_engine.install(tmp_path, behaviour)) as session:
        engine = session.core.engine_pid
        begin = time.monotonic()
        with pytest.raises(ProtocolError, match=rf"the engine sent .*{message}.*it was killed"):
            product_is_right(session)
        report(f"nonsense ({behaviour}) raised", time.monotonic() - begin)
        assert time.monotonic() - begin < GENEROUS_S
        wait_for(lambda: is_gone(engine), "the fake engine is gone")


def test_engine_that_answers_twice(tmp_path: Path) -> None:
    with open_small(engine_path=fake_engine.install(tmp_path, "twice")) as session:
        engine = session.core.engine_pid
        session.core.noop()
        wait_for(lambda: is_gone(engine), "it was killed, though nobody waits any more")


def test_engine_that_answers_noise(tmp_path: Path) -> None:
    with open_small(engine_path=fake_engine.install(tmp_path, "noise")) as session:
        for _ in range(3):  # each time with a new engine
            with pytest.raises(ProtocolError, match="completion that is not valid"):
                session.core.noop()
        assert session.stats()["engine_starts"] == 3


def test_engine_that_refuses_what_is_right(tmp_path: Path) -> None:
    refusal = "gemm 48x48 @ 48x48 was refused: a dimension is 0"
    path = fake_engine.install(tmp_path, "refuses")
    with open_small(engine_path=path) as session, pytest.raises(Unsupported, match=refusal):
        product_is_right(session)


def test_engine_whose_report_is_noise(tmp_path: Path) -> None:
    with open_small(engine_path=fake_engine.install(tmp_path, "reports_noise")) as session:
        session.core.set_profiling(True)
        with pytest.raises(ProtocolError, match="report on a GEMM is not valid: its timeline"):
            product_is_right(session)
        assert session.core.take_records() == []
        assert session.stats()["heap_used_bytes"] == 0


def test_engine_that_dies_at_each_command(tmp_path: Path) -> None:
    with open_small(engine_path=fake_engine.install(tmp_path, "dies")) as session:
        for _ in range(3):
            with pytest.raises(DeviceLost, match="exit status 7"):
                session.core.noop()


def test_engine_that_garbles_header_and_rings(tmp_path: Path) -> None:
    """What the client needs it has copied: the next engine finds the region as it should be."""
    path = fake_engine.install(tmp_path, "first", sessions_engine(), "garbles")
    with open_small(engine_path=path) as session:
        matrix, _block = array(session.core, 8, 8)
        matrix[:] = 7.0
        with pytest.raises((DeviceLost, ProtocolError)):
            session.core.noop()
        assert product_is_right(session)
        assert (matrix == 7.0).all()
        assert session.core.generation == 2


def test_engine_that_flips_bits(tmp_path: Path) -> None:
    """Every answer ends in a result or in an error of ours, soon."""
    with open_small(engine_path=fake_engine.install(tmp_path, "flips")) as session:
        results = errors = 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and errors < 25:
            begin = time.monotonic()
            try:
                session.core.noop()
                results += 1
            except ShmgemmError:
                errors += 1
            assert time.monotonic() - begin < 5
        print(f"{results} results, {errors} errors")
        assert errors > 0


def run_engine(region_fd: int, *words: str) -> tuple[abi.Control | None, int, str]:
    """The real engine on a region of our making: its first record, its status, its last words."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [default_engine_path(), "--region-fd", str(region_fd)]
        command += ["--control-fd", str(theirs.fileno()), *words]
        engine = subprocess.Popen(
            command, pass_fds=(region_fd, theirs.fileno()), stderr=subprocess.PIPE, text=True
        )
        theirs.close()
        ours.settimeout(20)
        record = ours.recv(1024)
        ours.close()  # where it was content, it ends now
        _, errors = engine.communicate(timeout=20)
        control = abi.Control.from_buffer_copy(record) if record else None
        return control, engine.returncode, errors


def good_header() -> abi.Header:
    header = abi.Header(magic=abi.MAGIC, abi_major=abi.ABI_MAJOR, abi_minor=abi.ABI_MINOR)
    header.header_bytes = 1472
    header.region_bytes = abi.MIN_REGION_BYTES
    header.generation = header.queue_pair_count = 1
    header.queue_pair_offset = abi.PAGE_BYTES
    header.heap_offset = abi.HEAP_ALIGN
    header.heap_bytes = abi.MIN_REGION_BYTES - abi.HEAP_ALIGN
    return header


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"abi_major": 2}, "region of ABI version 2, this build speaks 1"),
        ({"magic": 1}, "wrong magic number"),
        ({"region_bytes": 8 << 20}, "region header"),
        ({"heap_bytes": 8 << 20}, "leaves the heap"),
        ({"queue_pair_count": 15}, "region header"),
        ({"queue_pair_offset": 100}, "aligned"),
        ({"heap_offset": 2**63}, "leaves the heap"),
        ({"arena_count": 2**32 - 1}, "region header"),
    ],
)
def test_real_engine_refuses_a_wrong_region(changes: dict[str, int], message: str) -> None:
    header = good_header()
    for name, value in changes.items():
        setattr(header, name, value)
    fd = os.memfd_create("hostile")
    try:
        os.truncate(fd, abi.MIN_REGION_BYTES)
        os.pwrite(fd, bytes(header), 0)
        control, status, errors = run_engine(fd)
    finally:
        os.close(fd)
    assert control is not None and control.kind == abi.ControlKind.FAILED
    assert message in control.text.decode()
    assert status == 1 and message in errors


def test_real_engine_takes_a_right_region_and_ends_with_its_host() -> None:
    fd = os.memfd_create("hostile")
    try:
        os.truncate(fd, abi.MIN_REGION_BYTES)
        os.pwrite(fd, bytes(good_header()), 0)
        control, status, errors = run_engine(fd)
    finally:
        os.close(fd)
    assert control is not None and control.kind == abi.ControlKind.READY, errors
    assert status == 0


def test_real_engine_refuses_a_file_that_is_too_small() -> None:
    fd = os.memfd_create("hostile")
    try:
        os.truncate(fd, 4096)
        control, status, _ = run_engine(fd)
    finally:
        os.close(fd)
    assert control is not None
    assert "4096 bytes" in control.text.decode() and "4 MiB" in control.text.decode()
    assert status == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [("rows=-1", "rows"), ("nonsense=3", "nonsense"), ("model=none_such", "none_such")],
)
def test_real_engine_refuses_hardware_it_does_not_know(word: str, message: str) -> None:
    fd = os.memfd_create("hostile")
    try:
        os.truncate(fd, abi.MIN_REGION_BYTES)
        os.pwrite(fd, bytes(good_header()), 0)
        control, status, _ = run_engine(fd, word)
    finally:
        os.close(fd)
    assert control is not None and control.kind == abi.ControlKind.FAILED
    assert message in control.text.decode()
    assert status == 1


def test_engine_by_hand_says_what_it_wants() -> None:
    result = subprocess.run(
        [default_engine_path()], capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 1
    assert "--region and --link are needed" in result.stderr
    assert (
        shmgemm.__version__
        in subprocess.run(
            [default_engine_path(), "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
        or shmgemm.__version__ == "0+unknown"
    )
