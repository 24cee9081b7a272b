"""The exceptions a device can raise. What falls back to the CPU says so by a `FallbackWarning`."""

from __future__ import annotations


class ShmgemmError(RuntimeError):
    """Base of every error of this package."""


class DeviceLost(ShmgemmError):
    """The engine died or hung up; what was in flight is lost, tensors in the region are not."""


class DeviceTimeout(ShmgemmError, TimeoutError):
    """The engine showed no sign of life, or the caller's deadline passed."""


class ProtocolError(ShmgemmError):
    """A peer sent a record it must not send, or speaks another ABI version."""


class RegionFull(ShmgemmError, MemoryError):
    """No room in the shared region, or no room in the machine for it."""


class Unsupported(ShmgemmError, TypeError, ValueError):
    """A shape, dtype or platform that cannot work; the message says which and what can."""


class SessionClosed(ShmgemmError):
    """The session was closed, or belongs to the process this one was forked from."""


class FallbackWarning(RuntimeWarning):
    """A product was computed on the CPU because the device could not."""
