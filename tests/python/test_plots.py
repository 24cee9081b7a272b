"""The roofline: points and roofs stand where the numbers say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import shmgemm
from shmgemm import plots
from shmgemm.profiling import Machine

HARDWARE = {"model": "scalesim_ws", "rows": 8, "cols": 4, "clock": "1MHz"}


@pytest.fixture
def prof() -> Any:
    with shmgemm.open(hardware=HARDWARE, region=16 << 20), shmgemm.profile() as prof:
        for m in (5, 5, 300):
            shmgemm.gemm(torch.ones(m, 9), torch.ones(9, 7))
    return prof


def test_one_point_per_shape_the_costliest_first(prof: Any) -> None:
    large, small = plots.points(prof.records)
    cycles = {m: 4 * (2 * 8 + 4 + m - 2) - 1 for m in (5, 300)}
    assert large.label.startswith("300x7x9, 1 op, ")
    assert small.label.startswith("5x7x9, 2 ops, ")
    assert large.intensity == pytest.approx(2 * 300 * 63 / (4 * (300 * 9 + 63 + 300 * 7)))
    assert small.flops == pytest.approx(2 * 5 * 63 / (cycles[5] / 1e6))
    assert large.share == pytest.approx(cycles[300] / (cycles[300] + 2 * cycles[5]))


def test_the_memory_roof_is_the_models_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"model": "with_memory", "memory": "450GB/s", "rows": "8"}
    machine = Machine("made up", "0", 1, parameters)
    table = [
        SimpleNamespace(name="rows", unit=""),
        SimpleNamespace(name="memory", unit="bytes/s"),
    ]
    model = SimpleNamespace(name="with_memory", parameters=table)
    monkeypatch.setattr(plots._core, "models", lambda: [model])
    assert plots.bandwidth(machine) == 450 * 10**9
    assert plots.bandwidth(Machine("other", "0", 1, {"model": "scalesim_ws"})) is None


@pytest.mark.parametrize("memory", [None, 10**6, 10**9])
def test_a_picture_is_drawn(
    prof: Any, memory: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plots, "bandwidth", lambda machine: memory)
    path = plots.roofline(prof, tmp_path / "roofline.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_empty_profile_is_drawn(tmp_path: Path) -> None:
    with shmgemm.profile() as empty:
        pass
    assert plots.roofline(empty, tmp_path / "roofline.svg").read_text().startswith("<?xml")
    with pytest.raises(FileNotFoundError, match=r"^cannot write '.*roofline\.svg': no folder '"):
        plots.roofline(empty, tmp_path / "absent" / "roofline.svg")
