"""`shmgemm serve`, the server's own command line, and sstctl where there is no device."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wire
from older_client import OlderClient
from processes import BIN, Process


def start(*options: str) -> tuple[Process, int]:
    words = [sys.executable, "-m", "shmgemm", "serve", "--port", "0", *options]
    process = Process(words, start_new_session=True)
    port = int(process.wait_for(r"^Listening on TCP port (\d+)$")[1])
    process.wait_for("^READY$")
    return process, port


def assert_right(port: int) -> dict[str, Any]:
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    with OlderClient(port) as client:
        assert np.array_equal(client.gemm(a, a.T.copy()), a @ a.T)
        return wire.status(client)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_with_an_engine(
    how: signal.Signals, engine_processes: Callable[[], list[int]], tmp_path: Path
) -> None:
    region = tmp_path / "region"
    process, port = start("--hardware", "tiny_4x4_ws", "--region", str(region))
    status = assert_right(port)
    assert status["state"] == "device" and status["counters"]["inline_device"] == 1
    assert status["info"]["peak_macs_per_cycle"] == 16
    assert region.stat().st_size == status["region"]["bytes"]
    assert process.stop(how) in (0, 130), process.output
    assert not engine_processes()


def test_it_leaves_nothing_when_it_is_killed(engine_processes: Callable[[], list[int]]) -> None:
    process, port = start("--hardware", "tiny_4x4_ws")
    process.process.send_signal(signal.SIGKILL)
    process.process.wait(60)
    deadline = time.monotonic() + 60
    while (engine_processes() or listens(port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not engine_processes() and not listens(port)
    process.stop()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def test_cpu_only_with_a_debug_log() -> None:
    process, port = start("--cpu-only", "--log-level", "debug")
    assert assert_right(port)["state"] == "cpu"
    process.wait_for(r"op 0 GEMM, 3x4 @ 4x3 float32: JSON \d+, A 48, B 48, bias 0, C 36 bytes")
    assert process.stop() in (0, 130)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(sys.executable, "-m", "shmgemm", "serve", "--cpu-only", "--port", port)
    assert done.returncode == 1
    expected = f"cannot listen on TCP port {port} of 127.0.0.1: the port is in use"
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "--port 70000: a number from 0 to 65535 expected"),
        (["--cpu-only", "--hardware", "tpu_v3"], "--cpu-only and --hardware exclude each other"),
        (["--hardware", "no_such"], "no_such"),
    ],
)
def test_bad_options(options: list[str], message: str) -> None:
    done = run(sys.executable, "-m", "shmgemm", "serve", *options)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "99999"], "--port: a number from 0 to 65535 expected, 99999 given"),
        (["--bind", "localhost"], "--bind: an IPv4 address expected, localhost given"),
        (["--link", "x"], "--link and --region go together"),
        (["--device", "x", "--link", "y", "--region", "z"], "exclude each other"),
        (["--frobnicate", "1"], "unknown option --frobnicate"),
        (["--port"], "--port: a value expected"),
    ],
)
def test_bad_options_of_the_server(options: list[str], message: str) -> None:
    done = run(str(BIN / "shmgemm-server"), *options)
    assert done.returncode == 2 and message in done.stderr


def test_sstctl_says_what_is_missing(tmp_path: Path) -> None:
    sstctl = str(BIN / "sstctl")
    done = run(sstctl, "--device", str(tmp_path / "sst0"), "ping")
    assert done.returncode == 1
    assert "sst0: No such file or directory (is the module loaded" in done.stderr
    done = run(sstctl, "--device", os.devnull, "info")
    assert done.returncode == 1 and "does not answer as a virtio-sst device" in done.stderr
    done = run(sstctl, "gemm", "1", "2")
    assert done.returncode == 2 and "gemm M N K expected" in done.stderr
    done = run(sstctl, "compute", "many")
    assert done.returncode == 2 and "a whole number up to" in done.stderr
    assert "usage: sstctl" in run(sstctl, "--help").stdout
