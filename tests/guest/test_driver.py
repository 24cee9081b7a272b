"""The Linux driver: it builds without a warning, and keeps docs/driver.md's promises in a guest.

The guest is the production kernel with tests/guest/stress as its /init, and an engine that
misbehaves on request. `make test-kernel` runs more of the same in a kernel that watches itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shmgemm.guest import _kernel
from shmgemm.guest._progress import Progress

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "kernel_module"


@pytest.fixture(scope="module")
def kernel_build() -> Path:
    return _kernel.build("production", Progress(False))


def make(*words: str | Path) -> str:
    done = subprocess.run(
        [*_kernel.MAKE, "-s", "-C", MODULE, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_compiler_and_sparse_have_nothing_to_say(kernel_build: Path, tmp_path: Path) -> None:
    assert shutil.which("sparse"), "needs Debian's sparse: tools/setup-debian.sh --test"
    said = make(f"KDIR={kernel_build}", f"BUILD={tmp_path}", "check")
    assert said.strip() == ""
    assert (tmp_path / "virtio_sst.ko").exists()


def test_module_is_found_by_its_devices(kernel_build: Path, tmp_path: Path) -> None:
    make(f"KDIR={kernel_build}", f"BUILD={tmp_path}")
    module = (tmp_path / "virtio_sst.ko").read_bytes()
    assert b"alias=virtio:d0000003Fv*" in module
    assert b"alias=pci:v00001AF4d00001110sv*" in module
    assert b"license=GPL\0" in module


def test_uapi_headers_compile_alone(tmp_path: Path) -> None:
    make(f"INSTALL_HDR_PATH={tmp_path}", "headers_install")
    program = (
        "#include <shmgemm/virtio_sst.h>\nint main(void) { return VIRTIO_SST_DEVICE_ID != 63; }"
    )
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-x", "c", "-"]
    command += ["-I", str(tmp_path / "include"), "-o", str(tmp_path / "program")]
    subprocess.run(command, input=program, text=True, check=True)
    subprocess.run([str(tmp_path / "program")], check=True)


def test_driver_in_the_production_guest() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "test_kernel.py"), "--production"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout
