"""`pip install .` as a newcomer runs it: a fresh environment, build isolation, no torch.

Every other test uses an environment with torch and the build requirements in it, which would hide a
missing requirement, a file that the wheel lacks, or an import of torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
INSTALLED = """
import importlib.metadata, importlib.util, json
files = [str(file) for file in importlib.metadata.files("shmgemm")]
print(json.dumps({"files": files, "torch": importlib.util.find_spec("torch") is not None}))
"""


def environment(folder: Path) -> dict[str, str]:
    """Without this environment's programs, import paths and settings; pip's own are kept."""
    here = str(Path(sys.executable).parent)
    path = [entry for entry in os.environ["PATH"].split(os.pathsep) if entry != here]
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CMAKE_ARGS", "SKBUILD_CMAKE_ARGS")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and (not name.startswith("SHMGEMM_") or "TEST_RUN" in name)
    }
    # ccache, where it is in use, finds what the project's own folder has compiled.
    kept["CCACHE_BASEDIR"] = str(folder.parent)
    return {**kept, "PATH": os.pathsep.join([str(folder / "bin"), *path])}


def copy_sources(destination: Path) -> None:
    """What git would hand over, with files not committed yet; none of what was built."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (PROJECT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, destination / name)


class Install:
    """The fresh environment, with shmgemm in it."""

    def __init__(self, folder: Path) -> None:
        self.sources, self.venv, self.work = folder / "sources", folder / "venv", folder / "work"
        self.work.mkdir()
        copy_sources(self.sources)
        subprocess.run([sys.executable, "-m", "venv", self.venv], check=True, timeout=120)
        self.run("python", "-m", "pip", "install", "--disable-pip-version-check", self.sources)

    def run(self, program: str, *words: str | Path) -> str:
        done = subprocess.run(
            [self.venv / "bin" / program, *words],
            cwd=self.work,
            env=environment(self.venv),
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, f"{program} {words}:\n{done.stdout[-8000:]}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    return Install(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def installed(install: Install) -> Any:
    return json.loads(install.run("python", "-c", INSTALLED))


def test_the_wheel_carries_library_engine_and_presets_but_no_torch(installed: Any) -> None:
    assert not installed["torch"]
    names = {Path(file).name for file in installed["files"]}
    assert {"libshmgemm_client.so", "shmgemm-engine", "_core.pyi", "tpu_v3.toml"} <= names
    assert not [name for name in names if name.startswith("_torch")]
    assert any(name.startswith("_core.") and name.endswith(".so") for name in names)
    outside = {Path(file).parts[0] for file in installed["files"]}
    assert {part for part in outside if not part.startswith("shmgemm")} <= {".."}  # bin/shmgemm


def test_the_example_without_torch_runs(install: Install) -> None:
    output = install.run("python", install.sources / "examples" / "numpy_only.py")
    assert "copied 1,024 bytes" in output


def test_doctor_finds_the_device_and_its_products_right(install: Install) -> None:
    report = json.loads(install.run("shmgemm", "doctor", "--run", "--json"))
    found = {finding["name"]: finding for finding in report["findings"]}
    assert not [f["name"] for f in report["findings"] if f["required"] and not f["ok"]]
    assert not found["torch"]["ok"]
    assert len(report["trials"]) == 2 and all(trial["ok"] for trial in report["trials"])


def test_what_needs_torch_says_so(install: Install) -> None:
    script = "import shmgemm\ntry:\n  shmgemm.DeviceLinear\nexcept ImportError as e: print(e)"
    assert install.run("python", "-c", script) == (
        "shmgemm.DeviceLinear needs torch, which is not installed: pip install torch\n"
    )
