"""The pytest harness: a session fixture, and the check that the tests leave nothing behind.

Every engine started under the tests inherits a marker in its environment, so that one is found even
after the process that started it has died.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shmgemm.session import Session

with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "shmgemm",
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("shmgemm")

REGION_BYTES = 32 << 20
MARKER = ("SHMGEMM_TEST_RUN", uuid.uuid4().hex)
SHARED_MEMORY = Path("/dev/shm")
PROGRAMS = ("shmgemm-engine", "shmgemm-server", "sst", "sstsim.x")

os.environ.update([MARKER])
shared_memory_before = set(os.listdir(SHARED_MEMORY))


def pytest_configure() -> None:
    """In a shell's background Ctrl-C is ignored, by our children too: they need it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def running_engines() -> list[int]:
    """Pids of the live engines (shmgemm-engine, SST) and servers that this test run started."""
    pids = []
    marker = "=".join(MARKER).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or not ours
            continue
        if name in PROGRAMS and state != "Z" and marker in environment:
            pids.append(int(process.name))
    return pids


@pytest.fixture
def engine_processes() -> Callable[[], list[int]]:
    return running_engines


@pytest.fixture
def session() -> Iterator[Session]:
    """An embedded session with a small region, current while the test runs."""
    import shmgemm

    with shmgemm.open(region=REGION_BYTES) as opened:
        yield opened


def close_current_session() -> None:
    module = sys.modules.get("shmgemm.session")
    current = module.current_or_none() if module else None
    if current is not None:
        current.close()


def leftovers(patience_s: float = 3.0) -> list[str]:
    """What the tests have left on the machine, after giving engines a moment to end."""
    deadline = time.monotonic() + patience_s
    while (engines := running_engines()) and time.monotonic() < deadline:
        time.sleep(0.05)
    files = sorted(set(os.listdir(SHARED_MEMORY)) - shared_memory_before)
    return [f"engine process {pid}" for pid in engines] + [
        f"file {SHARED_MEMORY / name}" for name in files
    ]


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Set up before every other fixture, so torn down after them: an error of the last test."""
    yield
    close_current_session()
    gc.collect()
    left = leftovers()
    assert not left, f"the tests left behind: {', '.join(left)}"
