"""The C validator as a shared object, compiled once per test run."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import c_abi


@pytest.fixture(scope="session")
def validator(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return c_abi.load_validator(tmp_path_factory.mktemp("validator"))
