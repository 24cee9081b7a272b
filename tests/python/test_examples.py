"""Every example runs as a program of its own; what it asserts itself is its test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NO_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None;"
    " runpy.run_path(sys.argv[1], run_name='__main__')"
)


def run(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested_here() -> None:
    tested = {"zero_copy", "numpy_only", "train", "lost_device"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_zero_copy(tmp_path: Path) -> None:
    output = run(str(EXAMPLES / "zero_copy.py"), cwd=tmp_path)
    assert "130 folds of 178 cycles - 1 = 23,139 cycles, 0 bytes copied" in output


@pytest.mark.parametrize("how", [[], ["-c", NO_TORCH]])
def test_numpy_only_with_torch_and_without(how: list[str], tmp_path: Path) -> None:
    output = run(*how, str(EXAMPLES / "numpy_only.py"), cwd=tmp_path)
    assert "copied 1,024 bytes" in output  # the bias; the arrays lie in the region


def test_train(tmp_path: Path) -> None:
    output = run(str(EXAMPLES / "train.py"), cwd=tmp_path)
    assert "linear layers simulated: 100.00 %" in output
    assert "all products  simulated: 100.00 %" in output
    assert (tmp_path / "out/train/loss.png").read_bytes().startswith(b"\x89PNG")


def test_lost_device(tmp_path: Path) -> None:
    output = run(str(EXAMPLES / "lost_device.py"), cwd=tmp_path)
    assert "after the kill: DeviceLost" in output
    assert "nothing left in /dev/shm, no process left" in output
