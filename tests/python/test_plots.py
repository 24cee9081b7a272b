"""The pictures: points, roofs, rates and rows stand where the numbers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

import shmgemm
from shmgemm import plots
from shmgemm._activity import placed
from shmgemm.plots import _layers, _roofline, _style, _timeline

HARDWARE = {"model": "scalesim_ws", "rows": 8, "cols": 4, "clock": "1MHz"}
SYSTOLIC = HARDWARE | {"model": "systolic", "memory_bw": "20MB/s", "dispatch": 50}
PICTURES = (plots.roofline, plots.timeline, plots.layers)


def profile_of(hardware: dict[str, Any], devices: int = 1) -> Any:
    with (
        shmgemm.open(hardware=hardware, region=16 << 20, devices=devices),
        shmgemm.profile() as prof,
    ):
        for m in (5, 5, 300):
            shmgemm.gemm(torch.ones(m, 9), torch.ones(9, 7))
            if devices > 1:
                shmgemm.gemm(torch.ones(m, 9), torch.ones(9, 70), sim_device=1)
    return prof


@pytest.fixture
def prof() -> Any:
    return profile_of(HARDWARE)


@pytest.fixture(autouse=True)
def _letters_stay_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")


def test_one_point_per_shape_the_costliest_first(prof: Any) -> None:
    large, small = _roofline.points(prof.records)
    cycles = {m: 4 * (2 * 8 + 4 + m - 2) - 1 for m in (5, 300)}
    assert large.label.startswith("300x7x9, 1 op, ")
    assert small.label.startswith("5x7x9, 2 ops, ")
    assert large.intensity == pytest.approx(2 * 300 * 63 / (4 * (300 * 9 + 63 + 300 * 7)))
    assert small.flops == pytest.approx(2 * 5 * 63 / (cycles[5] / 1e6))
    assert large.share == pytest.approx(cycles[300] / (cycles[300] + 2 * cycles[5]))


def test_no_point_lies_above_the_roofs() -> None:
    hardware = SYSTOLIC | {"cores": 2, "arrays": 2}
    found = profile_of(hardware)
    peak = 2 * 2 * 2 * 8 * 4 * 1e6
    assert {op.peak_macs_per_cycle for op in found.records} == {2 * 2 * 8 * 4}
    for point in _roofline.points(found.records):
        assert point.flops <= min(peak, point.intensity * 20e6)


@pytest.mark.parametrize("draw", PICTURES)
@pytest.mark.parametrize("hardware", [HARDWARE, SYSTOLIC, SYSTOLIC | {"memory": "ideal"}])
def test_a_picture_is_drawn(draw: Any, hardware: dict[str, Any], tmp_path: Path) -> None:
    path = draw(profile_of(hardware), tmp_path / "picture.png", "three products")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", PICTURES)
def test_an_empty_profile_is_drawn(draw: Any, tmp_path: Path) -> None:
    with shmgemm.profile() as empty:
        pass
    assert "no products" in draw(empty, tmp_path / "picture.svg").read_text()
    with pytest.raises(FileNotFoundError, match=r"^cannot write '.*picture\.svg': no folder '"):
        draw(empty, tmp_path / "absent" / "picture.svg")


@pytest.mark.parametrize("draw", PICTURES)
def test_the_title_says_preset_model_and_what_ran(draw: Any, tmp_path: Path) -> None:
    title = "mine on custom (model systolic, 1 MHz)"
    assert title in draw(profile_of(SYSTOLIC), tmp_path / "p.svg", "mine").read_text()


def test_rates_of_a_run_add_up_to_its_ops() -> None:
    found = profile_of(SYSTOLIC)
    ops = placed(found.records)
    last = max(op.end_cycles for op in found.records)
    edges = np.linspace(0, last, 38)
    macs, busy, stall, dispatch, moved = _timeline.rates(ops, found.machines[0], edges)
    length = last / 37
    assert macs.sum() * length == pytest.approx(sum(op.macs for op in found.records) / 32)
    assert busy.sum() * length == pytest.approx(sum(op.busy_cycles for op in found.records))
    assert stall.sum() * length == pytest.approx(
        sum(op.memory_stall_cycles for op in found.records)
    )
    assert dispatch.sum() * length == pytest.approx(3 * 50)
    total = sum(op.memory_bytes for op in found.records)
    assert moved.sum() * length == pytest.approx(total, rel=0.01)
    assert moved.max() <= 20 + 1e-9


def test_rates_are_zero_where_the_device_is_idle() -> None:
    found = profile_of(SYSTOLIC)
    ops = [(op, start + 5000 * i) for i, (op, start) in enumerate(placed(found.records))]
    end = ops[0][0].cycles
    means = _timeline.rates(ops, found.machines[0], np.array([0.0, end, end + 4000.0]))
    assert means[1][0] > 0
    assert means[:, 1] == pytest.approx([0] * 5)


def test_modules_are_grouped_at_the_depth_that_can_be_read(prof: Any) -> None:
    op = replace(prof.records[0], start_cycles=0, end_cycles=10)
    kinds = ("attention.query", "attention.key", "output")
    names = [f"encoder.layer.{i}.{kind}" for i in range(5) for kind in kinds]
    ops = [(replace(op, module=name), 10 * i) for i, name in enumerate(names)]
    assert [group[0] for group in _timeline.module_groups(ops)] == names
    many = [(op, start + 150 * i) for i in range(2) for op, start in ops]
    groups = _timeline.module_groups(many)
    assert groups[:2] == [("encoder.layer.0", 0, 30), ("encoder.layer.1", 30, 60)]
    assert len(groups) == 10
    flat = [(replace(op, module=str(i % 2)), 10 * i) for i in range(99)]
    assert _timeline.module_groups(flat) == []


def test_layers_of_one_kind_share_a_row_where_there_are_many(prof: Any) -> None:
    op = prof.records[0]
    few = [replace(op, module=f"h.{i}.fc") for i in range(40)]
    assert [row.label for row in _layers.rows(few)] == [f"h.{i}.fc" for i in range(40)]
    many = [replace(op, module=f"h.{i}.{kind}") for i in range(60) for kind in ("fc", "proj2")]
    rows = _layers.rows([*many, replace(op, module="head")])
    assert [row.label for row in rows] == [
        "h.*.fc  (60 layers)",
        "h.*.proj2  (60 layers)",
        "head",
    ]
    nested = [replace(op, module=f"{i}.{j}") for i in range(30) for j in (0, 2)]
    assert [row.label for row in _layers.rows(nested)] == ["*.0  (30 layers)", "*.2  (30 layers)"]
    square = [replace(op, module=f"{i}.{j}") for i in range(50) for j in range(50)]
    assert [row.label for row in _layers.rows(square)] == ["*.*  (2500 layers)"]
    assert [row.cycles for row in rows] == [60 * op.cycles, 60 * op.cycles, op.cycles]
    assert rows[0].utilization == pytest.approx(op.utilization)
    apart = [replace(op, module=f"layer_{i}", end_cycles=op.end_cycles + i) for i in range(50)]
    rows = _layers.rows(apart)
    assert len(rows) == _layers.MOST_ROWS
    assert rows[-1].label == "11 more kinds of layers"
    assert sum(row.cycles for row in rows) == sum(op.cycles for op in apart)


def test_of_several_devices_the_busiest_is_drawn(tmp_path: Path) -> None:
    found = profile_of(SYSTOLIC, devices=2)
    picture = plots.timeline(found, tmp_path / "timeline.svg").read_text()
    assert "device 1 of 2: 3 products" in picture


def test_the_title_says_where_there_are_more_sessions(tmp_path: Path) -> None:
    with shmgemm.profile() as found:
        for hardware in (SYSTOLIC, HARDWARE):
            with shmgemm.open(hardware=hardware, region=16 << 20):
                shmgemm.gemm(torch.ones(5, 9), torch.ones(9, 7))
    for draw in PICTURES:
        picture = draw(found, tmp_path / "p.svg").read_text()
        assert "custom (model systolic, 1 MHz), first of 2 sessions: " in picture


def test_times_have_the_unit_that_suits_them() -> None:
    assert _style.time_unit(3.0) == ("s", 1.0)
    assert _style.time_unit(0.02) == ("ms", 1e-3)
    assert _style.time_unit(4e-6) == ("µs", 1e-6)
    assert _style.time_unit(4e-9) == ("ns", 1e-9)
    assert _style.hertz_text(940e6) == "940 MHz"
    assert _style.hertz_text(1.5e9) == "1.5 GHz"
    assert _style.hertz_text(1050e6) == "1050 MHz"
