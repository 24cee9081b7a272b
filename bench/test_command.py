"""Commands that carry no product: what a round trip costs from Python."""

from __future__ import annotations

from typing import Any

import shmgemm


def test_noop(session: shmgemm.Session, benchmark: Any) -> None:
    completion = benchmark(session.core.noop)
    assert completion.status == 0


def test_echo(session: shmgemm.Session, benchmark: Any) -> None:
    assert benchmark(session.core.echo, 1, 2, 3) == (1, 2, 3)


def test_empty(session: shmgemm.Session, benchmark: Any) -> None:
    tensor = benchmark(shmgemm.empty, 128, 256)
    assert session.core.contains(tensor.data_ptr(), tensor.nbytes)
