"""The engine that was installed with this package."""

from __future__ import annotations

from pathlib import Path


def default_engine_path() -> str:
    """Of the program `shmgemm-engine`."""
    return str(Path(__file__).parent / "bin" / "shmgemm-engine")
