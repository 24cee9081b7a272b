"""Guests that boot, in real QEMU: READY, commands inside, what is shared, how they end."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import link
import pytest
import qtest

from shmgemm import connect, errors, guest
from shmgemm.guest import _agent, _state
from shmgemm.guest._initramfs import Archive

READY_S = 300.0  # generous: the machine may be busy
EXEC_S = 120.0
REGION_BYTES = 32 << 20


@pytest.fixture(scope="module")
def region() -> Iterator[str]:
    """A region as a session has it: a file without a name."""
    descriptor = os.memfd_create("region")
    os.ftruncate(descriptor, REGION_BYTES)
    yield f"/proc/{os.getpid()}/fd/{descriptor}"
    os.close(descriptor)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared, with a comma")


@pytest.fixture(scope="module")
def running(
    image: guest.Image, region: str, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[guest.Guest]:
    """One guest for the tests that leave it as it was."""
    link_path = tmp_path_factory.mktemp("link") / "engine.sock"
    with guest.Guest(region, link_path, shared, image=image) as booted:
        booted.wait_ready(READY_S)
        yield booted


def test_ready_guest_has_driver_and_file(running: guest.Guest) -> None:
    status, output = running.exec(["lsmod"], EXEC_S)
    assert status == 0 and "virtio_sst" in output
    assert running.exec(["test", "-c", "/dev/sst0"], EXEC_S) == (0, "")
    assert "Listening on TCP port 9999" in running.console()


def test_server_port_answers(running: guest.Guest) -> None:
    with socket.create_connection(("127.0.0.1", running.port), EXEC_S):
        pass


@pytest.mark.parametrize(
    ("words", "status", "output"),
    [
        (["echo", "one", "two words", ""], 0, "one two words \n"),
        (["sh", "-c", "echo out; echo err >&2; exit 7"], 7, "out\nerr\n"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["no-such-command"], 127, "no-such-command: No such file or directory\n"),
        (["/etc"], 126, "/etc: Permission denied\n"),
    ],
)
def test_exec(running: guest.Guest, words: list[str], status: int, output: str) -> None:
    assert running.exec(words, EXEC_S) == (status, output)


def test_exec_carries_much_in_both_directions(running: guest.Guest) -> None:
    content = b"0123456789abcde\n" * 32768
    status, output = running.exec(["cat"], EXEC_S, content)
    assert status == 0 and output.encode() == content


def test_exec_that_is_given_up_is_killed(running: guest.Guest) -> None:
    with pytest.raises(errors.DeviceTimeout, match="sleep 4242"):
        running.exec(["sleep", "4242"], 2.0)
    deadline = time.monotonic() + EXEC_S
    while "sleep 4242" in running.exec(["ps"], EXEC_S)[1]:
        assert time.monotonic() < deadline


def test_agent_wants_its_token(running: guest.Guest) -> None:
    state = next(state for state in _state.running() if state.pid == running.pid)
    with pytest.raises(errors.DeviceLost, match="token"):
        _agent.run(state.agent_port, 32 * "0", ["echo"], EXEC_S)


def test_shared_folder_works_in_both_directions(running: guest.Guest, shared: Path) -> None:
    (shared / "from-host").write_text("hello")
    assert running.exec(["cat", "/mnt/shared/from-host"], EXEC_S) == (0, "hello")
    assert running.exec(["sh", "-c", "echo hi > /mnt/shared/from-guest"], EXEC_S)[0] == 0
    assert (shared / "from-guest").read_text() == "hi\n"


def test_ports_are_on_loopback_alone(running: guest.Guest) -> None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if int(port, 16) == running.port and line.split()[3] == "0A":
            assert address == "0100007F"


def test_two_guests_at_once_and_an_end_without_traces(
    image: guest.Image, running: guest.Guest
) -> None:
    with guest.Guest(None, None, image=image) as other:
        other.wait_ready(READY_S)
        assert other.port != running.port
        assert {other.pid, running.pid} <= {state.pid for state in _state.running()}
        folder, pid = other.console_path.parent, other.pid
    assert not folder.exists() and _state.start_ticks(pid) is None
    with pytest.raises(errors.DeviceLost, match="does not run"):
        other.exec(["true"])
    other.stop()


def test_device_reconnects_while_the_guest_runs(image: guest.Image, tmp_path: Path) -> None:
    with guest.Guest(None, tmp_path / "engine.sock", image=image) as booted:
        booted.wait_ready(READY_S)
        engine = link.Engine(tmp_path / "engine.sock")
        assert engine.accept()["role"] == link.QEMU
        engine.close()


def test_an_owned_guest_dies_with_its_process(image: guest.Image) -> None:
    text = (
        "import sys, time; from pathlib import Path; from shmgemm import guest\n"
        "booted = guest.Guest(None, None)\n"
        "booted.start(); print(booted.pid, flush=True); time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert _state.start_ticks(pid) is not None
        owner.send_signal(signal.SIGKILL)
    qtest.wait_for(lambda: _state.start_ticks(pid) is None, "QEMU has ended")
    assert pid not in [state.pid for state in _state.running()]


def test_command_line(image: guest.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def shmgemm(*words: str, content: str = "") -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "shmgemm", "guest", *words],
            input=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=READY_S,
            check=False,
        )
        return done.returncode, done.stdout

    status, output = shmgemm("exec", "--", "true")
    assert status == 1 and "no guest runs: start one with `shmgemm guest boot`" in output
    status, output = shmgemm("boot", "--port", "0", "--timeout", str(READY_S))
    assert status == 0 and "ready in" in output, output
    try:
        found = re.search(r"127\.0\.0\.1:(\d+), region (\S+),", output)
        assert found
        assert "pong" in shmgemm("exec", "--", "sstctl", "ping")[1], "it has an engine of its own"
        with connect(f"127.0.0.1:{found[1]}", found[2], strict=True) as session:
            assert session.info()["model"] == "systolic"
        assert shmgemm("exec", "--", "sh", "-c", "cat; exit 3", content="some\n") == (3, "some\n")
        assert shmgemm("shell", content="echo $((6*7))\nexit 5\n") == (5, "42\n")
        assert "READY" in shmgemm("console")[1]
        assert "127.0.0.1:" in shmgemm("status")[1]
    finally:
        assert shmgemm("stop")[0] == 0
    assert shmgemm("status") == (0, "no guest runs\n")
    assert list(Path(tmp_path / "shmgemm").iterdir()) == []


# --- what does not work says why ----------------------------------------------------------------


def test_port_in_use(image: guest.Image) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(guest.GuestError, match=f"port {port} on 127.0.0.1 is in use"):
            guest.Guest(None, None, port=port, image=image).start()


def test_bad_region(image: guest.Image, tmp_path: Path) -> None:
    with pytest.raises(guest.GuestError, match="No such file"):
        guest.Guest(tmp_path / "nowhere", None, image=image).start()
    (tmp_path / "odd").write_bytes(bytes(3 << 20))
    with pytest.raises(guest.GuestError, match="3145728 bytes: a power of two is expected"):
        guest.Guest(tmp_path / "odd", None, image=image).start()


def test_bad_arguments(image: guest.Image) -> None:
    with pytest.raises(NotADirectoryError, match="no such folder"):
        guest.Guest(None, None, "/nowhere", image=image)
    with pytest.raises(ValueError, match="port = 70000"):
        guest.Guest(None, None, port=70000, image=image)
    with pytest.raises(ValueError, match="variant = 'fast'"):
        guest.build("fast")


def test_what_qemu_says_is_shown(image: guest.Image) -> None:
    broken = dataclasses.replace(image, kernel=Path("/nowhere/Image"))
    booted = guest.Guest(None, None, image=broken)
    with pytest.raises(guest.GuestError, match="/nowhere/Image"):  # noqa: PT012 - in either of them
        booted.start()
        booted.wait_ready(READY_S)
    booted.stop()


@pytest.mark.parametrize(
    ("init", "said"),
    [(None, "its kernel panicked"), ("#!/bin/sh\nsleep 1000\n", "has not said READY")],
)
def test_a_guest_that_is_never_ready(
    image: guest.Image, tmp_path: Path, init: str | None, said: str
) -> None:
    """An archive after the image's, as the kernel unpacks both, replaces /init.

    A kernel that cannot run it goes on to /bin/sh: it panics where that is busybox no more.
    """
    extra = Archive()
    extra.file("init", (init or "nonsense").encode(), 0o755)
    if init is None:
        extra.file("bin/busybox", b"nonsense", 0o755)
    base = image.initramfs.read_bytes()
    (tmp_path / "initramfs").write_bytes(base + bytes(-len(base) % 4) + extra.encoded())
    broken = dataclasses.replace(image, initramfs=tmp_path / "initramfs")
    with guest.Guest(None, None, image=broken) as booted:
        qtest.wait_for(
            lambda: "Run /init" in booted.console() or "panic" in booted.console(), "it booted"
        )
        with pytest.raises(guest.GuestError, match=said):
            booted.wait_ready(3.0 if init else READY_S)


def test_qemu_killed_while_booting(image: guest.Image) -> None:
    with guest.Guest(None, None, image=image) as booted:
        os.kill(booted.pid, signal.SIGKILL)
        with pytest.raises(guest.GuestError, match="QEMU ended before the guest was ready"):
            booted.wait_ready(READY_S)
