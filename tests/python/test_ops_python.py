"""The tests of the ops once more with the Python op alone, as where the extension was not built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

import shmgemm.ops

HERE = Path(__file__).parent


@pytest.mark.skipif(
    shmgemm.ops.IMPLEMENTATION == "python", reason="the Python op is what the other tests ran"
)
@pytest.mark.parametrize(
    "name",
    [
        "test_ops.py",
        "test_transforms.py",
        "test_fallback.py",
        "test_numerics.py",
        "test_async.py",
        "test_batch.py",
        "test_compat.py",
        "test_pipeline.py",
    ],
)
def test_without_the_extension(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / name)],
        env={**os.environ, "SHMGEMM_TORCH_EXT": "0"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
