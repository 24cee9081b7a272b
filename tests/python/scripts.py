"""Scripts in a Python of their own, for what a test cannot do to the Python that it runs in."""

from __future__ import annotations

import os
import subprocess
import sys


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def output(script: str, **environment: str) -> str:
    """What it prints; fails where it does not end well."""
    done = run(script, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
