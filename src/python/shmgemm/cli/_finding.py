"""What `shmgemm doctor` reports: one thing looked for, and a program looked for on PATH."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked for. `required`: nothing works without it."""

    name: str
    ok: bool
    text: str
    required: bool = True
    advice: str = ""


def program_on_path(name: str, program: str, advice: str) -> Finding:
    path = shutil.which(program)
    if path is None:
        return Finding(name, False, f"no {program} on PATH", False, advice)
    try:
        output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, False, f"{path}: {error}", False, advice)
    lines = (output.stdout or output.stderr).strip().splitlines()
    return Finding(name, True, f"{lines[0] if lines else 'found'} ({path})", False)
