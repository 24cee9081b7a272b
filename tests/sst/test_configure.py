"""Configuring the build beside an SST that the element is not written for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def configure(folder: Path, version: str, setting: str) -> subprocess.CompletedProcess[str]:
    """cmake/SST.cmake alone, with an `sst-config` that leads to an SST of that version."""
    (folder / "bin").mkdir()
    answers = {"sst-config": str(folder), "sst": f"SST-Core Version ({version})"}
    for name, answer in answers.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(configure LANGUAGES NONE)\n"
        f'set(SHMGEMM_SST "{setting}")\ninclude("{ROOT}/cmake/SST.cmake")\n'
        'message(STATUS "found=${SHMGEMM_SST_FOUND}")\n'
    )
    return subprocess.run(
        ["cmake", "-S", folder, "-B", folder / "build"],
        env={**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs sst-config and cmake")
def test_an_sst_of_another_major_version_is_named(tmp_path: Path) -> None:
    for setting in ("AUTO", "ON"):
        folder = tmp_path / setting
        folder.mkdir()
        done = configure(folder, "3.1.4", setting)
        said = " ".join((done.stdout + done.stderr).split())
        assert "that of SST 3.1.4; the element is written for SST 15, 16, dev" in said
        assert (done.returncode == 0) == (setting == "AUTO"), said
        assert ("found=FALSE" in said) == (setting == "AUTO"), said


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs sst-config and cmake")
@pytest.mark.parametrize("version", ["15.1.2", "16.0.0", "-dev"])
def test_an_sst_it_is_written_for_is_taken(tmp_path: Path, version: str) -> None:
    done = configure(tmp_path, version, "ON")
    assert done.returncode == 0, done.stderr
    assert f"SST {version.lstrip('-')} by" in done.stdout and "found=TRUE" in done.stdout
