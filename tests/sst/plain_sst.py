"""What the tests of SST share that need no session: plain `sst`, its statistics, small elements."""

from __future__ import annotations

import csv
import re
import subprocess
from functools import cache
from pathlib import Path

from shmgemm import plugins, sst

EXAMPLES = Path(__file__).parents[2] / "sst_gemm_element" / "examples"


def command(config: Path, *options: str, libraries: tuple[Path, ...] = ()) -> list[str]:
    """What runs a configuration with the element, and with libraries of a test's own."""
    folders = ":".join(map(str, (sst.library_folder(), *libraries)))
    return [sst.find().executable, f"--add-lib-path={folders}", *options, str(config)]


def play(
    config: Path, folder: Path, *words: str, status: int = 0, libraries: tuple[Path, ...] = ()
) -> str:
    """What `sst` prints; its csv lies in `folder`."""
    line = command(config, libraries=libraries)
    line += ["--", *words] if words else []
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == (status == 0), f"exit status {done.returncode}\n{said}"
    assert done.returncode >= 0, f"ended by signal {-done.returncode}\n{said}"
    return said


def statistics(path: Path) -> dict[str, dict[str, int]]:
    """Sums: component -> statistic -> value."""
    result: dict[str, dict[str, int]] = {}
    with path.open() as lines:
        for row in csv.DictReader(lines, skipinitialspace=True):
            of = result.setdefault(row["ComponentName"], {})
            of[row["StatisticName"]] = int(float(row["Sum.u64"]))
    return result


@cache
def has_memory_hierarchy() -> bool:
    program = Path(sst.find().executable).with_name("sst-info")
    return "memHierarchy" in subprocess.run([program], capture_output=True, text=True).stdout


def compile_element(source: Path, library: Path) -> None:
    """As docs/sst.md says: with the flags of SST and of the package."""
    asked = subprocess.run(
        ["sst-config", "--ELEMENT_CXXFLAGS"], capture_output=True, text=True, check=True
    )
    flags = [flag for flag in asked.stdout.split() if not re.match("-std=", flag)]
    flags += plugins.cflags().split()
    major = f"-DPROBE_SST_MAJOR={sst.find().major}"
    line = ["g++", "-O1", "-shared", "-fPIC", major, *flags, str(source), "-o", str(library)]
    subprocess.run(line, check=True, timeout=300)
