"""After each hostile test: no file in /dev/shm, no engine, no zombie."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from nothing_left import leaves_nothing_behind  # noqa: F401
