"""SST's own test framework finds the element's suite and passes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from plain_sst import EXAMPLES

from shmgemm import sst


def test_sst_test_elements(tmp_path: Path) -> None:
    # SST's own folder: the program finds its files beside itself, and not through a link.
    program = Path(sst.find().executable).with_name("sst-test-elements")
    done = subprocess.run(
        [program, "-p", EXAMPLES.parent / "tests", "-o", tmp_path / "outputs"],
        cwd=tmp_path,
        env={**os.environ, "SST_LIB_PATH": str(sst.library_folder())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "test_shmgemm_one_device" in said and "== TESTING PASSED ==" in said
