"""A throw-away Python environment for a tool that cannot live beside our own packages.

Made once under $XDG_CACHE_HOME/shmgemm and used again while it is complete; a lock lets several
processes ask for it at the same time. Deleting the folder is always safe.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import ShmgemmError

_MARKER = "complete"


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "shmgemm"


def python_with(name: str, requirements: Sequence[str], progress: Callable[[str], None]) -> Path:
    """The interpreter of an environment with these packages, made where it does not exist.

    Raises ShmgemmError with the last lines of what failed.
    """
    recipe = repr((sys.version_info[:2], sys.base_prefix, list(requirements)))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(folder.suffix + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = folder / "bin" / "python"
        if not (folder / _MARKER).exists() or not python.exists():
            progress(f"making an environment with {', '.join(requirements)} (once, a minute)")
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)], folder)
            quiet = ["--quiet", "--disable-pip-version-check"]
            _run([str(python), "-m", "pip", "install", *quiet, *requirements], folder)
            (folder / _MARKER).touch()
            progress(f"made {folder}")
    return python


def _run(command: Sequence[str], folder: Path) -> None:
    # The environment has its own packages; ours must not be seen in it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise ShmgemmError(
            f"cannot make the environment {folder}: {' '.join(command[1:])} ended with"
            f" {done.returncode}:\n{last}"
        )
