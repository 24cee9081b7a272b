"""What `shmgemm bench latency --guest` measures, in a real guest, with few samples.

No times are judged.
"""

from __future__ import annotations

import pytest

from shmgemm.bench import harness

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def rows() -> dict[str, harness.Row]:
    """Of a quick run, by the key that goals.toml has for each."""
    from shmgemm.bench import through_guest

    keys = {spec.name: key for key, spec in harness.specs("guest").items()}
    return {keys[row.name]: row for row in through_guest.latency("embedded", quick=True)}


def test_every_row_was_measured(rows: dict[str, harness.Row]) -> None:
    assert list(rows) == list(harness.specs("guest"))
    assert all(rows[key].p50 > 0 for key in rows if not key.startswith(("bytes", "hop_")))
    assert rows["gemm"].floor == rows["echo"].p50
    assert rows["gemm_inline"].floor == rows["gemm"].p50


def test_only_records_cross_and_the_counters_would_tell(rows: dict[str, harness.Row]) -> None:
    m, k, n = 32, 128, 256
    matrices = 4 * (m * k + k * n + m * n)
    assert rows["bytes"].p50 == 0
    inline = rows["bytes"].floor
    assert inline is not None
    assert inline > matrices


def test_hops_add_up(rows: dict[str, harness.Row]) -> None:
    hops = [row.p50 for key, row in rows.items() if key.startswith("hop_")]
    assert len(hops) == 6
    assert sum(hops) == pytest.approx(rows["hops"].p50)
    assert rows["hop_engine"].p50 > 0
