"""The SST engine: every test here needs `sst-config`, and none leaves a process or file behind."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

import harness


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("sst-config") is not None:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs sst-config"))


@pytest.fixture(autouse=True)
def sst_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of every session that a test opens without naming one, also in a child process."""
    monkeypatch.setenv("SHMGEMM_ENGINE", "sst")


@pytest.fixture(autouse=True)
def leaves_nothing_behind(engine_processes: Callable[[], list[int]]) -> Iterator[None]:
    before = set(engine_processes())
    files = set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    harness.wait_for(lambda: set(engine_processes()) <= before, "every engine has ended")
    harness.wait_for(lambda: not harness.zombies(), f"zombies {harness.zombies()} collected")
    assert set(os.listdir("/dev/shm")) <= files
