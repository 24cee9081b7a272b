"""`shmgemm bench latency --guest` in a real guest, with few samples. No times are judged."""

from __future__ import annotations

import json

import pytest

from shmgemm import guest
from shmgemm.bench import harness
from shmgemm.cli import main

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> dict[str, dict[str, float]]:
    """What a quick run prints, by the key that goals.toml has for each row."""
    guest.build()
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(str(words[0])))
        main(["bench", "latency", "--guest", "--quick", "--json"])
    (report,) = (json.loads(text) for text in printed if text.startswith("{"))
    keys = {spec.name: key for key, spec in harness.specs("guest").items()}
    return {keys[row["name"]]: row for row in report["rows"]}


def test_every_row_was_measured(rows: dict[str, dict[str, float]]) -> None:
    assert list(rows) == list(harness.specs("guest"))
    assert all(row["p50"] > 0 for key, row in rows.items() if key not in ("bytes", "hop_tcp"))
    assert rows["gemm"]["p99"] >= rows["gemm"]["p50"]


def test_only_records_cross_and_the_counters_would_tell(rows: dict[str, dict[str, float]]) -> None:
    m, k, n = 32, 128, 256
    matrices = 4 * (m * k + k * n + m * n)
    assert rows["bytes"]["p50"] == 0
    assert rows["bytes"]["floor"] > matrices


def test_hops_add_up(rows: dict[str, dict[str, float]]) -> None:
    hops = [row["p50"] for key, row in rows.items() if key.startswith("hop_")]
    assert len(hops) == 6
    assert sum(hops) == pytest.approx(rows["hops"]["p50"])
