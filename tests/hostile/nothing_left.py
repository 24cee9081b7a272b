"""For tests that start and kill engines: none leaves a file in /dev/shm, an engine or a zombie."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator

import harness
import pytest


@pytest.fixture(autouse=True)
def leaves_nothing_behind(engine_processes: Callable[[], list[int]]) -> Iterator[None]:
    before = set(engine_processes())
    files = set(os.listdir("/dev/shm"))
    yield
    gc.collect()
    harness.wait_for(lambda: set(engine_processes()) <= before, "every engine has ended")
    harness.wait_for(lambda: not harness.zombies(), f"zombies {harness.zombies()} collected")
    assert set(os.listdir("/dev/shm")) <= files
