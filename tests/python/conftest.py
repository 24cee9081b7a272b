"""What the tests of the torch face share: a device for a module's tests, a look at its records."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def device() -> Iterator[Any]:
    """A session with a small region and two devices, current for all tests of a module."""
    import shmgemm

    with shmgemm.open(region=64 << 20, devices=2) as opened:
        yield opened


@pytest.fixture
def records(device: Any) -> Iterator[Callable[[], list[Any]]]:
    """Call it for the ops that ran since the last call."""
    device.core.set_profiling(True)
    device.core.take_records()
    yield device.core.take_records
    device.core.set_profiling(False)
    device.core.take_records()
