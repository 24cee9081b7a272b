"""The device inside a QEMU source tree: configured in, and compiled with that tree's own flags."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from shmgemm.guest import _programs, _sources
from shmgemm.guest._progress import Progress

TIMEOUT_S = 900


def run(*words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """QEMU's source with the device in it, configured; hard links to the cache's files."""
    source, _ = _programs.qemu_headers(Progress(show=True))
    folder = tmp_path_factory.mktemp("qemu") / "qemu"
    run("cp", "-al" if same_disk(source, folder.parent) else "-a", source, folder)
    for _ in range(2):  # twice adds nothing twice
        run(_sources.QEMU_DEVICE / "add-to-tree.sh", folder, env={"SHMGEMM_ABI": str(_sources.ABI)})
    (folder / "build").mkdir(exist_ok=True)
    run(folder / "configure", *_programs.QEMU_OPTIONS, cwd=folder / "build")
    return folder


def same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def test_lines_are_added_once(tree: Path) -> None:
    for file, line in (
        ("hw/Kconfig", "source sst/Kconfig"),
        ("hw/meson.build", "subdir('sst')"),
        ("meson.build", "'hw/sst',"),
    ):
        assert (tree / file).read_text().count(line) == 1
    assert "CONFIG_VIRTIO_SST=y" in (tree / "build/riscv64-softmmu-config-devices.mak").read_text()


def test_it_compiles_with_the_trees_own_flags(tree: Path) -> None:
    commands = json.loads((tree / "build/compile_commands.json").read_text())
    objects = [entry["output"] for entry in commands if Path(entry["file"]).parent.name == "sst"]
    names = sorted(Path(name).name for name in objects)
    assert names == [
        "hw_sst_virtio-sst-link.c.o",
        "hw_sst_virtio-sst-pci.c.o",
        "hw_sst_virtio-sst.c.o",
    ]
    said = run("ninja", "-C", tree / "build", "-j2", *objects)
    assert "warning" not in said
