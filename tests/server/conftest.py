"""Fixtures of the guest tests: servers that must end well, and an engine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from processes import Engine, Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers; each must still be there at the end, and end well."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(*options))
        return servers[-1]

    yield start
    for server in servers:
        if server.stopped:
            continue
        alive = server.process.poll() is None
        assert server.stop() == 0 and alive, server.output


@pytest.fixture
def cpu(serve: Callable[..., Server]) -> Server:
    return serve("--log-level", "debug")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    started = Engine(tmp_path)
    yield started
    started.kill()
    with contextlib.suppress(FileNotFoundError):
        started.link.unlink()
