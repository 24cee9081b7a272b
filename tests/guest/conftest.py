"""What the tests of the guest path share: the built image, machines and engines to talk to.

`shmgemm.guest.build()` makes the image, minutes the first time. A machine without QEMU or without
what the build needs skips these tests; `make test` installs both and counts such a skip as failure.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import link
import qtest

from shmgemm import guest
from shmgemm.guest import _programs
from shmgemm.guest._progress import Progress


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which(qtest.QEMU) is not None:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"needs {qtest.QEMU}"))


@pytest.fixture(scope="session")
def plugin() -> Path:
    return _programs.plugin(Progress(show=True))


@pytest.fixture(scope="session")
def image() -> guest.Image:
    return guest.build()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[link.Engine]:
    listening = link.Engine(tmp_path / "engine.sock")
    yield listening
    listening.close()


@pytest.fixture
def machine(plugin: Path, tmp_path: Path) -> Iterator[Callable[..., qtest.Machine]]:
    """Starts a machine whose virtio-sst expects its engine at tmp_path/engine.sock."""
    started = []

    def start(*options: str, device: str = "virtio-sst-device,index=0") -> qtest.Machine:
        words = [f"{device},socket={tmp_path / 'engine.sock'}"]
        started.append(qtest.Machine(plugin, tmp_path, "-device", *words, *options))
        return started[-1]

    yield start
    for running in started:
        running.close()
