"""How much of the staging a pipelined model hides behind the engine's work.

Branches that do not depend on each other, each a linear layer on an activation outside of the
region. The engine computes on one thread, so that it and the client have a CPU each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

import shmgemm

from .harness import Row, interleaved, progress, specs

BRANCHES = 8  # the first one's copy hides behind nothing: 7/8 is the most
ROWS, FEATURES, OUTPUTS = 1024, 1024, 4  # 4 MiB a branch; so few outputs: the copy is to matter
_REGION = 256 << 20


class Branches(nn.Module):
    """One linear layer for each input, none of which waits for another."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(FEATURES, OUTPUTS) for _ in range(BRANCHES))

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


def rows(quick: bool = False) -> Iterator[Row]:
    """The pipeline's rows of [async]."""
    progress("async: pipelined staging beside blocking, and beside operands in the region")
    with shmgemm.open(strict=True, threads=1, region=_REGION) as session, torch.inference_mode():
        blocking: nn.Module = Branches()
        outside = [torch.randn(ROWS, FEATURES) for _ in range(BRANCHES)]
        exact = deepcopy(blocking).double()([x.double() for x in outside])
        pipelined = deepcopy(blocking)
        shmgemm.offload_(blocking)
        shmgemm.offload_(pipelined, pipeline=True)
        inside = [shmgemm.to_region(x) for x in outside]
        calls: dict[str, Callable[[], list[Tensor]]] = {
            "blocking": lambda: blocking(outside),
            "pipelined": lambda: pipelined(outside),
            "in region": lambda: blocking(inside),
        }
        for how, call in calls.items():
            before = session.stats()["bytes_copied"]
            for result, right in zip(call(), exact, strict=True):
                torch.testing.assert_close(result.double(), right, rtol=1e-3, atol=1e-3)
            _check_copied(how, session.stats()["bytes_copied"] - before)
        times = interleaved(calls, rounds=3 if quick else 41, samples=3 if quick else 5)
    slow, hidden, fast = (times[how].scaled(1e3) for how in calls)
    found = specs("async")
    yield found["pipelined"].row(hidden.p50, hidden.p99, slow.p50)
    yield found["in_region"].row(fast.p50, fast.p99, slow.p50)
    yield found["hidden"].row(hidden_share(slow.p50, hidden.p50, fast.p50))


def hidden_share(blocking: float, pipelined: float, in_region: float) -> float:
    """Of what copying adds to a blocking run; 0 where it added nothing, so nothing was hidden."""
    added = blocking - in_region
    return (blocking - pipelined) / added if added > 0 else 0.0


def _check_copied(how: str, copied: int) -> None:
    wanted = 0 if how == "in region" else BRANCHES * ROWS * FEATURES * 4
    if copied != wanted:
        raise RuntimeError(f"{how}: copied {copied} bytes; expected {wanted}")
