"""Sessions: one region, its engines, and the settings they were opened with.

Those of this process, and which of them is the current one: the ops' own. What opens one is in
`opening` and `attaching`. A session belongs to the process that opened it: a forked child opens its
own.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _core
from .hardware import Hardware

if TYPE_CHECKING:
    from ._guest_path import GuestPath
    from .guest import Guest

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_on_open: list[Callable[[Session], None]] = []
_current: Session | None = None


class Session:
    """An open simulated device: `with shmgemm.open(...) as session: ...`.

    `core` is the compiled session, `hardware` the checked description, `numerics` "fast" or
    "bit_accurate", `strict` whether a device error is raised where an op would otherwise fall back
    to the CPU, `devices` how many there are.
    """

    def __init__(
        self,
        core: _core.Session,
        described: Hardware,
        numerics: str,
        strict: bool,
        devices: int,
        path: GuestPath | None = None,
    ) -> None:
        self.core = core
        self.hardware = described
        self.numerics = numerics
        self.strict = strict
        self.devices = devices
        self._path = path
        self._former: Session | None = None
        self._pid = os.getpid()
        _sessions.add(self)
        for callback in _on_open:
            callback(self)

    @property
    def clock_hz(self) -> int:
        """Of the simulated device: seconds are cycles ÷ this."""
        return self.hardware.clock_hz

    @property
    def guest(self) -> Guest | None:
        """The machine that commands go through, or None: `session.guest.exec(["dmesg"])`."""
        return None if self._path is None else self._path.machine

    @property
    def closed(self) -> bool:
        """True also in a child of the process that opened it."""
        return self.core.closed

    @property
    def engine_pids(self) -> list[int]:
        """The process of each engine, 0 where none runs; device d is served by d % len()."""
        return self.core.engine_pids

    def stats(self) -> dict[str, Any]:
        """Totals since the session was opened; cycles are of the device's clock."""
        return {
            **self.core.stats(),
            "clock_hz": self.clock_hz,
            "preset": self.hardware.name,
            "numerics": self.numerics,
        }

    def info(self, device: int = 0) -> dict[str, Any]:
        """What the engine says of itself and of one device."""
        return self.core.info(device)

    def reset(self, device: int = 0) -> None:
        """Zero one device's counters; simulated time goes on."""
        self.core.reset(device)

    def close(self) -> None:
        """End the engine; tensors in the region stay valid. Closing twice is no error.

        Other threads that computed on it get SessionClosed from their op, or from their next one.
        """
        was_current = _core.current_session_or_none() is self.core
        self._end()  # first: who finds no current session looks whether its own was closed
        if was_current and _core.current_session_or_none() is None:
            make_current(None)

    def _end(self) -> None:
        self.core.close()
        if self._path is not None and self._pid == os.getpid():
            self._path.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The former first: a thread that computes meanwhile must find one of them.
        if self._former is not None and not self._former.closed:
            make_current(self._former)
        self.close()

    def __repr__(self) -> str:
        pids = [str(pid) for pid in self.core.engine_pids if pid]
        state = "closed" if self.closed else "connected"
        if pids and not self.closed:
            state = f"engine pid{'s' * (len(pids) > 1)} {', '.join(pids)}"
        return f"<shmgemm.Session {self.hardware.label}, {state}>"


def current_or_none() -> Session | None:
    """The current session, or None where no op has needed one yet."""
    core = _core.current_session_or_none()
    return None if core is None else face_of(core)


def make_current(session: Session | None) -> None:
    hold(session)
    _core.set_current_session(None if session is None else session.core)


def hold(session: Session | None) -> None:
    """Keep the current session alive: a program need not keep what open() returned."""
    global _current
    _current = session


def enter(session: Session) -> Session:
    """Make it the current one; the end of its `with` block brings back the one before."""
    session._former = current_or_none()
    make_current(session)
    return session


def face_of(core: _core.Session) -> Session:
    if _current is not None and _current.core is core:
        return _current
    return next(session for session in _sessions if session.core is core)


def open_sessions() -> list[Session]:
    """Those of this process that were not closed, in no order."""
    return [session for session in list(_sessions) if not session.closed]


def on_open(callback: Callable[[Session], None]) -> None:
    """Call `callback` with every session opened from now on."""
    _on_open.append(callback)


_GRACE_S = 0.02  # in which other threads come to their next op


def _close_all() -> None:
    _core.set_program_ending()
    if threading.active_count() > 1 and _sessions:
        time.sleep(_GRACE_S)
    for session in list(_sessions):
        if session._pid == os.getpid():
            session._end()


atexit.register(_close_all)
