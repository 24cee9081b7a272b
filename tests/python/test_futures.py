"""Futures that are dropped: what the device still uses is not given to anybody else meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
import torch

import shmgemm


def _of_torch(device: Any) -> Any:
    a, b = (shmgemm.empty(64, 64).fill_(1.0) for _ in range(2))
    return shmgemm.gemm_async(a, b)


def _of_torch_without_the_extension(device: Any) -> Any:
    a, b = (shmgemm.empty(64, 64).fill_(1.0) for _ in range(2))
    return shmgemm.gemm_async(a, b, out_dtype=torch.float32)


def _of_numpy(device: Any) -> Any:
    a = shmgemm.gemm(np.ones((64, 8), np.float32), np.ones((8, 64), np.float32))
    b = shmgemm.gemm(np.ones((64, 8), np.float32), np.ones((8, 64), np.float32))
    return shmgemm.gemm_async(a, b)


@pytest.mark.parametrize("send", [_of_torch, _of_torch_without_the_extension, _of_numpy])
def test_a_dropped_future_keeps_its_operands_until_the_device_has_read_them(
    device: Any, send: Callable[[Any], Any]
) -> None:
    before = device.stats()["heap_used_bytes"]
    future = send(device)
    used = device.stats()["heap_used_bytes"]
    assert used - before >= 3 * 64 * 64 * 4
    del future
    assert device.stats()["heap_used_bytes"] == used  # it is not flushed: nothing has ended yet
    device.core.flush()
    assert device.stats()["heap_used_bytes"] == before


class Failing:
    """A product that is over, with an error that has frames."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def done(self) -> bool:
        return True

    def wait(self, timeout_s: float) -> bool:
        return True

    def result(self) -> None:
        raise self.error

    def cancel(self) -> bool:
        return False


@pytest.mark.parametrize(
    "kind",
    [
        shmgemm.DeviceLost,
        shmgemm.DeviceTimeout,
        shmgemm.ProtocolError,
        shmgemm.RegionFull,
        shmgemm.Unsupported,
        shmgemm.SessionClosed,
        CancelledError,
    ],
)
def test_a_failed_future_raises_its_error_each_time_and_holds_no_frames(kind: Any) -> None:
    future = shmgemm.Future(Failing(kind("said why")), 0)
    for _ in range(2):
        with pytest.raises(kind, match="said why") as raised:
            future.result()
        assert type(raised.value) is kind
    error = future.exception()
    assert type(error) is kind
    assert error.__traceback__ is None
    assert error.__context__ is None
