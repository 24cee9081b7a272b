"""What the device did not compute: products that fell back to the CPU, and layers' calls kept back.

Nothing falls back unseen: each is counted here (profile.coverage reads it) and a fallback warns; a
strict session raises instead.
"""

from __future__ import annotations

import threading
import warnings
from typing import NamedTuple

from shmgemm import session, settings
from shmgemm.errors import FallbackWarning, SessionClosed, ShmgemmError, Unsupported

LINEAR = "linear"  # the name of a linear layer's forward product, also in its record


class Counters(NamedTuple):
    """Totals of this process since its start."""

    kept_ops: int = 0
    kept_macs: int = 0
    fallen_ops: int = 0
    fallen_macs: int = 0
    fallen_linear_macs: int = 0  # of those: of linear layers' forward passes


_lock = threading.Lock()
_counters = Counters()


def counters() -> Counters:
    """A snapshot; a profile subtracts the one it took at its start."""
    return _counters


def keep(macs: int) -> None:
    """Count a layer's call that stayed on the CPU because it was below its threshold."""
    global _counters
    with _lock:
        c = _counters
        _counters = c._replace(kept_ops=c.kept_ops + 1, kept_macs=c.kept_macs + macs)


def is_strict() -> bool:
    """Whether a device error is to be raised: as the session says, else as the settings say."""
    current = session.current_or_none()
    if current is not None:
        return bool(current.strict)
    return bool(settings.resolve("strict"))


def fall(error: ShmgemmError, op: str, m: int, n: int, k: int, batch: int) -> None:
    """Count and warn that the CPU is about to compute a product; raise where it must not.

    A closed session is no failure of the device: whoever computed on it is told.
    """
    if isinstance(error, (Unsupported, SessionClosed)) or is_strict():
        raise error
    global _counters
    macs = m * n * k * batch
    with _lock:
        c = _counters
        _counters = c._replace(
            fallen_ops=c.fallen_ops + 1,
            fallen_macs=c.fallen_macs + macs,
            fallen_linear_macs=c.fallen_linear_macs + (macs if op == LINEAR else 0),
        )
    batches = f"{batch} x " if batch != 1 else ""
    warnings.warn(
        FallbackWarning(
            f"shmgemm: {op} {batches}{m}x{k} @ {k}x{n} computed on the CPU, not simulated:"
            f" {type(error).__name__}: {error}"
        ),
        stacklevel=3,
    )
