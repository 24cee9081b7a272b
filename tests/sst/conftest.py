"""The SST engine: every test here needs `sst-config`, and none leaves a process or file behind."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from nothing_left import leaves_nothing_behind  # noqa: F401
from plain_sst import EXAMPLES, compile_element


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if shutil.which("sst-config") is not None:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="needs sst-config"))


@pytest.fixture(scope="session")
def elements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example of a timing model and the tests' own element library."""
    folder = tmp_path_factory.mktemp("elements")
    compile_element(EXAMPLES / "fixed_rate.cpp", folder / "libfixed_rate.so")
    compile_element(Path(__file__).parent / "element" / "probe.cpp", folder / "libprobe.so")
    return folder


@pytest.fixture(autouse=True)
def sst_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of every session that a test opens without naming one, also in a child process."""
    monkeypatch.setenv("SHMGEMM_ENGINE", "sst")
