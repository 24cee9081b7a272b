"""What a second simulated device gains: in simulated time, and what it costs in wall time.

Simulated time is that of the device that is done last, from devices that start together at 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

import shmgemm

from ..cli import _minilm
from .harness import Row, percentile, progress, specs

_FEATURES, _ROWS = 4096, 256
_REGION = 512 << 20


def rows(quick: bool = False) -> Iterator[Row]:
    """The rows of [async] about devices; those of MiniLM where it is installed."""
    yield from _sharded(quick)
    try:
        folder = _minilm.model_folder()
    except ImportError as error:
        progress(f"async: its row of MiniLM is left out: {error}")
        return
    progress("async: MiniLM on two devices")
    cycles = [_minilm_cycles(folder, count) for count in (1, 2)]
    yield specs("async")["minilm_simulated"].row(cycles[0] / cycles[1])


def _sharded(quick: bool) -> Iterator[Row]:
    progress(f"async: a layer of {_FEATURES} x {_FEATURES} on one device and on two")
    input, layer = torch.randn(_ROWS, _FEATURES), nn.Linear(_FEATURES, _FEATURES)
    with torch.no_grad():
        exact = nn.functional.linear(input, layer.weight, layer.bias)
    cycles: dict[str, int] = {}
    times: dict[str, list[float]] = {"one": [], "columns": []}
    for _ in range(1 if quick else 5):
        for how, devices, dim in (("one", 1, None), ("columns", 2, 0), ("terms", 2, 1)):
            with _placed(layer, devices, dim) as session, torch.inference_mode():
                inside = shmgemm.to_region(input)
                torch.testing.assert_close(layer(inside), exact, rtol=1e-3, atol=1e-3)
                cycles[how] = simulated_cycles(session)
                if how in times:
                    times[how] += _seconds(lambda x=inside: layer(x), 2 if quick else 7)  # type: ignore[misc]
    one, two = ([1e3 * seconds for seconds in taken] for taken in times.values())
    found = specs("async")
    yield found["sharded_simulated"].row(cycles["one"] / cycles["columns"])
    yield found["sharded_wall"].row(
        percentile(two, 0.5), percentile(two, 0.99), percentile(one, 0.5)
    )
    yield found["sharded_terms_simulated"].row(cycles["one"] / cycles["terms"])


@contextmanager
def _placed(layer: nn.Linear, devices: int, dim: int | None) -> Iterator[shmgemm.Session]:
    """A session of its own with the layer on one device, or split over all along `dim`."""
    with shmgemm.open(strict=True, devices=devices, region=_REGION) as session:
        if dim is None:
            shmgemm.offload_(layer)
        else:
            shmgemm.shard_linear_(layer, devices, dim)
        try:
            yield session
        finally:
            shmgemm.restore_(layer)


def simulated_cycles(session: shmgemm.Session) -> int:
    """Since the session was opened, on the device that is done last."""
    return max(int(session.info(device)["now_cycles"]) for device in range(session.devices))


def _seconds(call: Callable[[], object], samples: int) -> list[float]:
    found = []
    for _ in range(samples):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return found


def _minilm_cycles(folder: Path, devices: int) -> int:
    """Of one forward pass, layer by layer over the devices, pipelined; checked."""
    tokenizer, model = _minilm.load(folder)
    inputs = tokenizer(list(_minilm.SENTENCES), padding=True, return_tensors="pt")
    with shmgemm.open(strict=True, devices=devices) as session, torch.inference_mode():
        exact = model(**inputs).last_hidden_state
        shmgemm.offload_(model, placement="round_robin", pipeline=True)
        found = model(**inputs).last_hidden_state
        torch.testing.assert_close(found, exact, rtol=0, atol=_minilm.TOLERANCE)
        return simulated_cycles(session)
