"""After each hostile test: no file in /dev/shm, no engine, no zombie."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness


@pytest.fixture(autouse=True)
def leaves_nothing_behind(engine_processes: Callable[[], list[int]]) -> Iterator[None]:
    before = set(engine_processes())
    files = set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    harness.wait_for(lambda: set(engine_processes()) <= before, "every engine has ended")
    harness.wait_for(lambda: not harness.zombies(), f"zombies {harness.zombies()} collected")
    assert set(os.listdir("/dev/shm")) <= files
