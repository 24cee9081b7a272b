"""Results of products that were sent without waiting for them."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, Protocol, TypeVar

from .errors import ShmgemmError

T = TypeVar("T")


class Sent(Protocol):
    """What the compiled side says of one product; several look like one in `Together`."""

    def done(self) -> bool: ...
    def wait(self, timeout_s: float) -> bool: ...
    def result(self) -> object: ...
    def cancel(self) -> bool: ...


class Together:
    """Several products that are one result; `held` has the memory they use, and outlives them."""

    def __init__(self, parts: Iterable[Sent], held: tuple[object, ...]) -> None:
        self._parts = list(parts)
        self._held = held

    def __del__(self) -> None:
        # Dropped, a product keeps the blocks that are still there.
        self._parts.clear()

    def done(self) -> bool:
        return all(part.done() for part in self._parts)

    def wait(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        return all(
            part.wait(timeout_s if timeout_s < 0 else max(0.0, end - time.monotonic()))
            for part in self._parts
        )

    def result(self) -> None:
        for part in self._parts:
            part.result()

    def cancel(self) -> bool:
        cancelled = [part.cancel() for part in self._parts]
        return any(cancelled)


class Chained:
    """A product that reads what another one writes: it is right where that one is."""

    def __init__(self, own: Sent, read: Sent) -> None:
        self.own = own
        self._read = read
        self.length = length_of(read) + 1
        self.done, self.wait, self.cancel = own.done, own.wait, own.cancel

    def result(self) -> object:
        self._read.result()
        return self.own.result()


def length_of(sent: Sent) -> int:
    """How many products are waited for, one after the other, before it is known to be right."""
    return sent.length if isinstance(sent, Chained) else 1


class Future(Generic[T]):
    """A product's result, there or still to come; returned by `gemm_async` and `linear_async`.

    Its operands must not change before it is done. Dropped, the product goes on and is counted.
    Awaitable in asyncio, and safe to share between threads.
    """

    __slots__ = (
        "__weakref__",
        "_error",
        "_finish",
        "_lock",
        "_memory",
        "_rescue",
        "_sent",
        "_value",
    )

    def __init__(
        self,
        sent: Sent | None,
        value: T,
        rescue: Callable[[ShmgemmError], T] | None = None,
        finish: Callable[[T], T] | None = None,
    ) -> None:
        """`rescue` makes the value where the device failed, `finish` what is returned of it."""
        self._sent = sent
        self._memory = value
        self._value = value
        self._rescue = rescue
        self._finish = finish
        self._error: BaseException | None = None
        self._lock = None if sent is None else threading.Lock()  # of who settles it

    @property
    def sent(self) -> Sent | None:
        """What is under way; None once it is done."""
        return self._sent

    @property
    def memory(self) -> T:
        """Where the device was to write."""
        return self._memory

    def done(self) -> bool:
        """Whether result() would return at once. Never blocks; gets the engine going."""
        sent = self._sent
        return sent is None or sent.done()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is done; False where `timeout` seconds passed first."""
        sent = self._sent
        return sent is None or sent.wait(-1.0 if timeout is None else max(0.0, timeout))

    def result(self, timeout: float | None = None) -> T:
        """The product, waiting for it at most `timeout` seconds (None: as long as it takes).

        Raises TimeoutError where that passed (it may be asked again), CancelledError (of
        concurrent.futures) after cancel(), and what a blocking call would raise; where that falls
        back to the CPU, so does this.
        """
        sent = self._sent
        if sent is not None:
            if timeout is not None and not sent.wait(max(0.0, timeout)):
                raise TimeoutError(f"the product is not there after {timeout} s")
            self._settle_once(sent)
        if self._error is not None:
            raise copy.copy(self._error)  # whose frames end with whoever handles it
        return self._value

    def then(self, finish: Callable[[T], T]) -> Future[T]:
        """This one, whose value goes through `finish` before anybody gets it."""
        if self._sent is None:
            if self._error is None:
                self._value = finish(self._value)
        else:
            self._finish = finish
        return self

    def _settle_once(self, sent: Sent) -> None:
        assert self._lock is not None
        with self._lock:
            if self._sent is not None:
                self._settle(sent)

    def _settle(self, sent: Sent) -> None:
        value = self._value
        try:
            sent.result()
        except ShmgemmError as error:
            if self._rescue is None:
                self._error = error
            else:
                try:
                    value = self._rescue(error)
                except ShmgemmError as final:
                    self._error = final
        except Exception as error:  # CancelledError; KeyboardInterrupt leaves it as it is
            self._error = error
        if self._error is not None:
            # Its frames hold what was computed with, some of it out of gc's reach.
            self._error.__traceback__ = self._error.__context__ = None
        elif self._finish is not None:
            value = self._finish(value)
        self._value = value
        self._sent = self._rescue = self._finish = None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What result() would raise, or None; TimeoutError is raised."""
        try:
            self.result(timeout)
        except BaseException:
            if self._error is None:
                raise
        return self._error

    def cancel(self) -> bool:
        """Nobody wants the result any more: False where it is there already.

        What was sent cannot be called back: it is computed, timed and counted all the same.
        """
        sent = self._sent
        return sent is not None and sent.cancel()

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            waiting = asyncio.get_running_loop().run_in_executor(None, self.wait)
            yield from waiting.__await__()
        return self.result()

    def __repr__(self) -> str:
        if self._sent is None:
            return f"<shmgemm.Future {'failed' if self._error else 'done'}>"
        return "<shmgemm.Future under way>"
