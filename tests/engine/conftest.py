"""Engines with a link: a session's or started by hand, embedded or in SST."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from link_client import ENGINES, GUEST_ARENA_BYTES, EngineByHand, Linked, Memory, words_for

from shmgemm import _core, hardware


@pytest.fixture
def open_linked(tmp_path: Path) -> Iterator[Callable[..., Linked]]:
    opened: list[_core.Session] = []

    def open_one(
        engine: str = "embedded", preset: str = "tpu_v3", devices: int = 1, clients: int = 0
    ) -> Linked:
        path = tmp_path / f"link{len(opened)}"
        described = hardware.load(preset)
        engine_path, engine_words = words_for(engine)
        core = _core.Session(
            engine_path=engine_path,
            engine_words=engine_words,
            parameters=described.parameters,
            region_bytes=32 << 20,
            devices=devices,
            link_path=str(path),
            guest_arena_bytes=GUEST_ARENA_BYTES,
            clients=clients,
        )
        opened.append(core)
        memory = Memory(core.region_fd, (32 << 20) - GUEST_ARENA_BYTES)
        return Linked(core, path, described, memory)

    yield open_one
    for core in opened:
        core.close()


@pytest.fixture(params=ENGINES)
def linked(request: pytest.FixtureRequest, open_linked: Callable[..., Linked]) -> Linked:
    """On each engine."""
    return open_linked(request.param)


@pytest.fixture
def embedded(open_linked: Callable[..., Linked]) -> Linked:
    return open_linked()


@pytest.fixture
def by_hand(tmp_path: Path) -> Iterator[Callable[..., EngineByHand]]:
    """Starts an engine without a session: (engine, region file, link path)."""
    started: list[EngineByHand] = []

    def start(engine: str, region: Path, path: Path, *words: str) -> EngineByHand:
        program, before = words_for(engine)
        if engine == "sst":
            configuration = tmp_path / "by_hand.py"
            configuration.write_text(sst_configuration(region, path))
            command = [program, before[0], str(configuration)]
        else:
            command = [program, "--region", str(region), "--region-bytes", str(32 << 20)]
            command += ["--link", str(path), *words]
        started.append(EngineByHand(command, path))
        return started[-1]

    yield start
    for engine in started:
        engine.process.kill()
        engine.process.communicate(timeout=30)


def sst_configuration(region: Path, path: Path) -> str:
    return f"""
import sst

host = sst.Component("host", "shmgemm.HostPort")
host.addParams({{"host": "file", "region": "{region}", "region_bytes": {32 << 20}}})
host.addParam("link", "{path}")
sst.Component("device0", "shmgemm.GemmDevice").addParam("clock", "1GHz")
"""


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    files = set(os.listdir("/dev/shm"))
    yield
    assert set(os.listdir("/dev/shm")) <= files
