"""Streams: products of one stream start in order, those of two streams may overlap.

Each simulated device has a stream of its own, which is where products go outside of
`with stream(...)`. Two streams on two devices overlap in simulated time; on one device, which
computes one product at a time, they queue in the order in which they were sent.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from . import _core, session
from . import opening as _opening  # noqa: F401 - opens the default session
from ._dtypes import check_sim_device
from .errors import SessionClosed, Unsupported

_numbers = itertools.count(_core.FIRST_STREAM)


def _limit(timeout: float | None) -> float:
    return -1.0 if timeout is None else max(0.0, timeout)


class Stream:
    """An order of products, of the session that is current when it is made.

    After that session was closed every use raises SessionClosed.
    """

    def __init__(self) -> None:
        self._core = _core.current_session()
        self._number = next(_numbers)

    @classmethod
    def _of_device(cls, sim_device: int) -> Stream:
        check_sim_device(sim_device)
        stream = cls.__new__(cls)
        stream._core = _core.current_session()
        stream._number = sim_device
        return stream

    @property
    def number(self) -> int:
        """From 256 on, as records carry it; a device's number for its own, where those have 0."""
        return self._number

    def _open(self) -> _core.Session:
        if self._core.closed:
            raise SessionClosed("the session of this stream was closed: make a new stream")
        return self._core

    def synchronize(self, timeout: float | None = None) -> bool:
        """Wait until all that was sent in it is done; False where `timeout` s passed first."""
        core = self._open()
        return core.wait_until(core.mark(self._number), _limit(timeout))

    def query(self) -> bool:
        """Whether all that was sent in it is done. Never blocks."""
        core = self._open()
        return core.reached(core.mark(self._number))

    def record_event(self, event: Event | None = None) -> Event:
        """An event (a new one, or the given one) at this place of the stream."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """What is sent in it from now on starts after the event; the host does not wait."""
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        """What is sent in it from now on starts after all that was sent in `stream`."""
        self.wait_event(stream.record_event())

    def __repr__(self) -> str:
        return f"<shmgemm.Stream {self._number}{', closed' if self._core.closed else ''}>"


class Event:
    """A place in a stream, for other streams and the host to wait for.

    It can only name what was sent before it was recorded, so no circle of waits can come about.
    """

    def __init__(self) -> None:
        self._core: _core.Session | None = None
        self._mark: _core.StreamMark | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Move it behind what was sent in `stream` (by default the current one) up to now."""
        stream = stream or current_stream()
        self._core = stream._open()
        self._mark = self._core.mark(stream.number)

    def _recorded(self) -> tuple[_core.Session, _core.StreamMark]:
        if self._core is None or self._mark is None:
            raise Unsupported(
                "shmgemm.Event: not recorded yet; call record() before waiting for it"
            )
        if self._core.closed:
            raise SessionClosed("the session of this event was closed: record it in a new stream")
        return self._core, self._mark

    def wait(self, stream: Stream | None = None) -> None:
        """What is sent in `stream` (by default the current one) from now on starts after it."""
        core, mark = self._recorded()
        stream = stream or current_stream()
        if stream._open() is not core:
            raise Unsupported("shmgemm.Event: recorded in another session than the stream's")
        core.wait_for(stream.number, mark)

    def query(self) -> bool:
        """Whether it was reached. Never blocks."""
        core, mark = self._recorded()
        return core.reached(mark)

    def synchronize(self, timeout: float | None = None) -> bool:
        """Wait until it was reached; False where `timeout` seconds passed first."""
        core, mark = self._recorded()
        return core.wait_until(mark, _limit(timeout))


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Send this thread's products in `stream`; None changes nothing, as in torch.

    Raises SessionClosed where its session was closed, Unsupported where another is current.
    """
    if stream is None:
        yield
        return
    core = stream._open()
    if core is not _core.current_session_or_none():
        raise Unsupported("shmgemm.stream: it belongs to another session than the current one")
    outer = _core.current_stream()
    # A device's own stream is its number there, and 0 here: each device keeps its own.
    _core.set_current_stream(stream.number if stream.number >= _core.FIRST_STREAM else 0)
    try:
        yield
    finally:
        _core.set_current_stream(outer)


def current_stream(sim_device: int = 0) -> Stream:
    """The stream that this thread's products for a device go to."""
    number = _core.current_stream()
    found = Stream._of_device(sim_device)
    if number:
        found._number = number
    return found


def synchronize() -> None:
    """Wait until everything that was sent to the current session is done, on all devices."""
    if session.current_or_none() is not None:
        _core.current_session().flush()
