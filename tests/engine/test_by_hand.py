"""Engines that a person starts: a region file and a link, no session."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from link_client import (
    DEADLINE_S,
    ENGINES,
    EngineByHand,
    LinkClient,
    LinkClosed,
    Memory,
    product,
    words_for,
)

from shmgemm import abi
from shmgemm.abi import ArenaState, Op, Status

Start = Callable[..., EngineByHand]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program, _ = words_for("embedded")
    return subprocess.run(
        [program, *map(str, words)], capture_output=True, text=True, timeout=DEADLINE_S
    )


def open_memory(region: Path) -> Memory:
    with region.open("r+b") as file:
        return Memory(file.fileno())


@pytest.mark.parametrize("engine", ENGINES)
def test_it_serves_a_region_that_survives_it(by_hand: Start, engine: str, tmp_path: Path) -> None:
    region, path = tmp_path / "region", tmp_path / "link"
    started = by_hand(engine, region, path)
    memory = open_memory(region)
    a, at_a = memory.array(np.full((8, 8), 2.0, np.float32))
    b, at_b = memory.array(np.full((8, 8), 3.0, np.float32))
    c, at_c = memory.array(np.zeros((8, 8), np.float32))
    with LinkClient(path) as client:
        client.submit(product(client, 1, at_a, at_b, at_c, 8, 8, 8, flags=abi.Flag.FLUSH))
        assert client.wait(1).status == Status.OK
        first = client.engine
        started.stop()
        with pytest.raises(LinkClosed):
            client.receive()
    assert not path.exists()
    assert (c == 48.0).all()
    by_hand(engine, region, path)
    with LinkClient(path) as client:
        assert client.engine.generation == first.generation + 1
        assert list(client.engine.region_id) == list(first.region_id)
        c[...] = 0.0
        client.submit(product(client, 1, at_a, at_b, at_c, 8, 8, 8, flags=abi.Flag.FLUSH))
        assert client.wait(1).status == Status.OK
    assert (c == 48.0).all()
    assert (a == 2.0).all()
    assert (b == 3.0).all()


def test_its_region_has_arenas_for_all(by_hand: Start, tmp_path: Path) -> None:
    region = tmp_path / "region"
    by_hand("embedded", region, tmp_path / "link")
    assert region.stat().st_mode & 0o777 == 0o600
    header = open_memory(region).header
    arenas = list(header.arenas)[: header.arena_count]
    assert [arena.state for arena in arenas] == [ArenaState.FREE] * 4 + [ArenaState.GUEST]
    assert arenas[-1].offset + arenas[-1].bytes == header.region_bytes
    assert sum(arena.bytes for arena in arenas) > header.heap_bytes - 5 * 4096


def test_a_region_of_the_default_size_has_a_guests_arena_of_16_mib(tmp_path: Path) -> None:
    region, path = tmp_path / "region", tmp_path / "link"
    program, _ = words_for("embedded")
    engine = EngineByHand([program, "--region", region, "--link", path], path)
    header = open_memory(region).header
    assert header.region_bytes == 256 << 20
    assert header.arenas[4].bytes == 16 << 20
    assert engine.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("engine", ENGINES)
def test_signals_end_it(
    by_hand: Start, engine: str, number: signal.Signals, tmp_path: Path
) -> None:
    path = tmp_path / "link"
    started = by_hand(engine, tmp_path / "region", path)
    status = started.stop(number)
    assert not path.exists()
    if engine == "embedded":
        assert status == 0


def test_a_signal_ends_it_in_the_middle_of_a_long_product(by_hand: Start, tmp_path: Path) -> None:
    region, path = tmp_path / "region", tmp_path / "link"
    started = by_hand("embedded", region, path)
    memory = open_memory(region)
    _, at_a = memory.array(np.zeros((64, 8192), np.float32))
    _, at_b = memory.array(np.zeros((8192, 64), np.float32))
    _, at_c = memory.array(np.zeros((900, 64, 64), np.float32))
    with LinkClient(path) as client:
        for id in range(1, 50):
            command = product(client, id, at_a, at_b, at_c, 64, 64, 8192)
            command.batch, command.stride_c = 900, 64 * 64
            client.submit(command)
        client.submit(client.command(Op.FLUSH, 100))
        started.stop()
    assert not path.exists()


def test_a_second_engine_is_kept_out(by_hand: Start, tmp_path: Path) -> None:
    region, path = tmp_path / "region", tmp_path / "link"
    by_hand("embedded", region, path)
    second = run("--region", region, "--link", tmp_path / "other")
    assert second.returncode == 1
    assert "another engine serves it" in second.stderr
    assert not (tmp_path / "other").exists()
    third = run("--region", tmp_path / "another", "--region-bytes", 4 << 20, "--link", path)
    assert third.returncode == 1
    assert "in use by another engine" in third.stderr
    with LinkClient(path) as client:
        assert client.run(Op.NOOP, 1).status == Status.OK


def test_what_a_killed_engine_left_is_replaced(by_hand: Start, tmp_path: Path) -> None:
    region, path = tmp_path / "region", tmp_path / "link"
    by_hand("embedded", region, path).stop(signal.SIGKILL)
    assert path.exists()
    by_hand("embedded", region, path)
    with LinkClient(path) as client:
        assert client.engine.generation == 2


def test_a_file_of_zeros_is_used_as_large_as_it_is(by_hand: Start, tmp_path: Path) -> None:
    """QEMU may have come first, and made it."""
    region, path = tmp_path / "region", tmp_path / "link"
    region.write_bytes(b"")
    os.truncate(region, 32 << 20)
    by_hand("embedded", region, path)
    with LinkClient(path) as client:
        assert client.engine.region_bytes == 32 << 20
        assert client.run(Op.NOOP, 1).status == Status.OK


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (b"\1" * (4 << 20), [], "wrong magic number"),
        (b"x", [], "a power of two, at least 4 MiB, expected"),
        (bytes(4 << 20), ["--region-bytes", "8388608"], "8388608 expected"),
        (bytes(5 << 20), [], "power of two"),
        (b"", ["--region-bytes", "5000000"], "power of two"),
        (b"", ["--region-bytes", "1e6"], '"1e6" given'),
        (b"", ["--region-bytes", str(1 << 39)], "of memory left"),
    ],
)
def test_regions_that_cannot_be(
    tmp_path: Path, content: bytes, words: list[str], told: str
) -> None:
    region = tmp_path / "region"
    region.write_bytes(content)
    failed = run("--region", region, "--link", tmp_path / "link", *words)
    assert failed.returncode == 1
    assert told in failed.stderr
    assert not (tmp_path / "link").exists()
    assert region.read_bytes() == content


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--region and --link are needed"),
        (["--region", "/tmp/x"], "--region and --link are needed"),
        (["--link"], "an option and its value expected"),
        (["--region", "/nowhere/x", "--link", "y"], "/nowhere/x: No such file"),
        (["--region", "/dev/null", "--link", "y"], "no regular file"),
        (["--nonsense", "3"], "unknown option --nonsense"),
    ],
)
def test_words_that_cannot_be(words: list[str], told: str) -> None:
    failed = run(*words)
    assert failed.returncode == 1
    assert told in failed.stderr


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"host": "file", "region": "r"}, "needs the parameters region and link"),
        ({"host": "nobody"}, "nobody"),
        ({"host": "file", "region": "/nowhere/r", "link": "l"}, "/nowhere/r: No such file"),
    ],
)
def test_an_sst_that_cannot_be(tmp_path: Path, parameters: dict[str, str], told: str) -> None:
    program, words = words_for("sst")
    configuration = tmp_path / "bad.py"
    configuration.write_text(
        "import sst\n"
        f'sst.Component("host", "shmgemm.HostPort").addParams({parameters!r})\n'
        'sst.Component("device0", "shmgemm.GemmDevice")\n'
    )
    failed = subprocess.run(
        [program, words[0], str(configuration)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=tmp_path,
    )
    assert failed.returncode != 0
    assert told in failed.stderr
