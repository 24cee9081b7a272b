"""profile(): what a record says, who sees which records, and what is written from them."""

from __future__ import annotations

import csv
import gc
import json
import os
import signal
import threading
import warnings
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import shmgemm
from shmgemm import _trace
from shmgemm._tables import COLUMNS, table
from shmgemm.profiling import Profile, Record

ROWS, COLS, CLOCK_HZ = 8, 4, 2_000_000
HARDWARE = {"model": "scalesim_ws", "rows": ROWS, "cols": COLS, "clock": "2MHz"}
SYSTOLIC = {
    "model": "systolic",
    "cores": 2,
    "rows": 8,
    "cols": 4,
    "clock": "2MHz",
    "memory_bw": "8MB/s",
}
REGION = 16 << 20
TRACE_SCHEMA = {
    "type": "object",
    "required": ["traceEvents", "displayTimeUnit"],
    "properties": {
        "displayTimeUnit": {"enum": ["ms", "ns"]},
        "traceEvents": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "ph", "pid", "tid"],
                "properties": {
                    "name": {"type": "string"},
                    "pid": {"type": "integer"},
                    "tid": {"type": "integer"},
                    "args": {"type": "object"},
                },
                "oneOf": [
                    {
                        "required": ["args"],
                        "properties": {
                            "ph": {"const": "M"},
                            "name": {"enum": ["process_name", "thread_name"]},
                            "args": {"required": ["name"]},
                        },
                    },
                    {
                        "required": ["args"],
                        "properties": {
                            "ph": {"const": "M"},
                            "name": {"const": "thread_sort_index"},
                            "args": {
                                "required": ["sort_index"],
                                "properties": {"sort_index": {"type": "integer"}},
                            },
                        },
                    },
                    {
                        "required": ["ts", "args"],
                        "properties": {
                            "ph": {"const": "C"},
                            "ts": {"type": "number", "minimum": 0},
                            "args": {
                                "minProperties": 1,
                                "additionalProperties": {"type": "number", "minimum": 0},
                            },
                        },
                    },
                    {
                        "required": ["ts", "dur", "cat"],
                        "properties": {
                            "ph": {"const": "X"},
                            "ts": {"type": "number", "minimum": 0},
                            "dur": {"type": "number", "minimum": 0},
                            "cat": {"type": "string"},
                        },
                    },
                ],
            },
        },
    },
}


@pytest.fixture
def device() -> Any:
    with shmgemm.open(hardware=HARDWARE, region=REGION) as opened:
        yield opened


def ws_cycles(m: int, n: int, k: int, rows: int = ROWS, cols: int = COLS) -> int:
    """SCALE-Sim's closed form for a weight-stationary array."""
    folds = -(-k // rows) * -(-n // cols)
    return folds * (2 * rows + cols + m - 2) - 1


def product(m: int, n: int, k: int) -> torch.Tensor:
    return shmgemm.gemm(torch.ones(m, k), torch.ones(k, n))


def test_a_record_says_everything_about_an_op(device: Any) -> None:
    with shmgemm.profile() as prof:
        product(5, 7, 9)
    (op,) = prof.records
    folds = 2 * 2
    assert (op.name, op.module, op.shape) == ("gemm", "", (5, 7, 9, 1))
    assert (op.dtype, op.dtype_out, op.device, op.session) == ("float32", "float32", 0, 0)
    assert op.cycles == ws_cycles(5, 7, 9)
    assert op.end_cycles - op.start_cycles == op.cycles
    assert op.macs == 5 * 7 * 9
    assert op.peak_macs_per_cycle == ROWS * COLS
    assert op.folds == folds
    assert op.busy_cycles == folds * 5
    assert op.busy_cycles + op.fill_drain_cycles == op.cycles
    assert op.memory_stall_cycles == op.dispatch_cycles == 0
    assert op.utilization == pytest.approx(5 * 7 * 9 / (op.cycles * ROWS * COLS))
    assert op.mapping_efficiency == pytest.approx(9 * 7 / (folds * ROWS * COLS))
    assert 0 < op.compute_utilization < op.mapping_efficiency
    assert op.simulated_s == pytest.approx(op.cycles / CLOCK_HZ)
    assert op.host_ns > 0
    assert op.host_s == pytest.approx(op.host_ns / 1e9)
    assert op.memory_bytes == 4 * (5 * 9 + 9 * 7 + 5 * 7)
    assert op.read_bytes["memory"] == {"a": 4 * 5 * 9, "b": 4 * 9 * 7, "c": 0, "bias": 0}
    assert op.write_bytes["memory"]["c"] == 4 * 5 * 7


def test_a_timeline_says_what_each_core_did_when() -> None:
    with shmgemm.open(hardware=SYSTOLIC, region=REGION), shmgemm.profile() as prof:
        product(50, 30, 40)
        product(50, 30, 40)
    for op in prof.records:
        entries = op.timeline
        assert {entry.core for entry in entries} == {0, 1}
        assert {entry.kind for entry in entries} == {"load", "compute", "store", "stall"}
        assert all(
            op.start_cycles <= entry.start_cycles < entry.end_cycles <= op.end_cycles
            for entry in entries
        )
        totals = {
            (kind, core): sum(e.amount for e in entries if (e.kind, e.core) == (kind, core))
            for kind in ("load", "compute", "store", "stall")
            for core in (0, 1)
        }
        assert totals["load", 0] + totals["load", 1] == sum(op.read_bytes["memory"].values())
        assert totals["store", 0] + totals["store", 1] == 4 * 50 * 30
        assert (op.busy_cycles, op.memory_stall_cycles) in [
            (totals["compute", core], totals["stall", core]) for core in (0, 1)
        ]
    first, second = (replace(op.timeline[0], start_cycles=0, end_cycles=0) for op in prof.records)
    assert first == second


def test_closed_forms_have_no_timeline(device: Any) -> None:
    with shmgemm.profile() as prof:
        product(5, 7, 9)
    assert prof.records[0].timeline == ()


def test_bytes_copied_are_those_of_operands_outside_of_the_region(device: Any) -> None:
    inside = shmgemm.to_region(torch.ones(6, 8))
    with shmgemm.profile() as prof:
        shmgemm.gemm(inside, torch.ones(8, 3))
        shmgemm.gemm(inside, shmgemm.to_region(torch.ones(8, 3)))
    assert [op.bytes_copied for op in prof.records] == [4 * 8 * 3, 0]


def test_layers_of_a_model_are_named_by_their_path(device: Any) -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU())
    model = torch.nn.Sequential(inner, torch.nn.Linear(6, 2))
    shmgemm.offload_(model)
    with shmgemm.profile() as prof:
        model(torch.ones(3, 4)).sum().backward()
    forward = [op for op in prof.records if op.name == "linear"]
    assert [(op.module, op.shape) for op in forward] == [("0.0", (3, 6, 4, 1)), ("1", (3, 2, 6, 1))]
    backward = [op for op in prof.records if op.name != "linear"]
    assert {op.module for op in backward} == {"0.0", "1"}
    assert sum(op.macs for op in backward) == 3 * (
        6 * 4 + 2 * (6 * 2)
    )  # the input wants no gradient
    assert [line.split()[0] for line in prof.table().splitlines()[2:4]] == ["0.0", "1"]


def test_only_ops_inside_the_block_are_recorded(device: Any) -> None:
    product(1, 1, 1)
    with shmgemm.profile() as prof:
        product(2, 2, 2)
    product(3, 3, 3)
    assert [op.m for op in prof.records] == [2]


def test_an_open_profile_can_be_read(device: Any) -> None:
    with shmgemm.profile() as prof:
        product(2, 2, 2)
        assert [op.m for op in prof.records] == [2]
        product(3, 3, 3)
        assert prof.cycles == ws_cycles(2, 2, 2) + ws_cycles(3, 3, 3)
        assert prof.coverage.matrix_macs == 8 + 27
    assert [op.m for op in prof.records] == [2, 3]


def test_nested_profiles_see_their_own_blocks(device: Any) -> None:
    with shmgemm.profile() as outer:
        product(1, 1, 1)
        with shmgemm.profile() as inner:
            product(2, 2, 2)
        product(3, 3, 3)
    assert [op.m for op in outer.records] == [1, 2, 3]
    assert [op.m for op in inner.records] == [2]


def test_a_profile_entered_again_goes_on_collecting(device: Any) -> None:
    prof = shmgemm.profile()
    for size in (2, 3):
        with prof:
            product(size, size, size)
        product(9, 9, 9)
    assert [op.m for op in prof.records] == [2, 3]


def test_a_profile_cannot_be_opened_twice_at_once() -> None:
    with shmgemm.profile() as prof, pytest.raises(RuntimeError, match="already open"):
        prof.__enter__()


def test_an_exception_ends_the_profile(device: Any) -> None:
    prof = shmgemm.profile()

    def work() -> None:
        with prof:
            product(2, 2, 2)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    product(3, 3, 3)
    assert [op.m for op in prof.records] == [2]


def test_sessions_opened_and_closed_inside_are_seen(device: Any) -> None:
    with shmgemm.profile() as prof:
        product(1, 1, 1)
        with shmgemm.open(hardware="gemmini", region=REGION):
            product(2, 2, 2)
        product(3, 3, 3)
    assert sorted((op.m, prof.machines[op.session].preset) for op in prof.records) == [
        (1, "custom"),
        (2, "gemmini"),
        (3, "custom"),
    ]
    gemmini = next(op for op in prof.records if op.m == 2)
    # Its two loads, its weights, from the first element to the last result, its store.
    assert gemmini.cycles == 2 + 2 + (2 + 16 + 2 - 2) + 1
    assert gemmini.clock_hz == 10**9


def test_a_session_that_is_not_current_is_seen_too(device: Any) -> None:
    with shmgemm.open(hardware="gemmini", region=REGION), shmgemm.profile() as prof:
        a, c = torch.ones(2, 2), torch.zeros(2, 2)
        views = [(x.data_ptr(), 0, 2, 1) for x in (a, a, c)]
        device.core.gemm("elsewhere", 2, 2, 2, 1, 1, 1, *views)
    assert [op.name for op in prof.records] == ["elsewhere"]
    assert c.tolist() == [[2, 2], [2, 2]]


def test_ops_of_all_threads_are_recorded(device: Any) -> None:
    def work() -> None:
        for _ in range(10):
            product(2, 3, 4)

    with shmgemm.profile() as prof:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(prof.records) == 40
    assert prof.cycles == 40 * ws_cycles(2, 3, 4)
    starts = sorted(op.start_cycles for op in prof.records)
    assert len(set(starts)) == 40  # one device runs one op at a time


def test_no_record_is_kept_where_nobody_profiles(device: Any) -> None:
    with shmgemm.profile():
        pass
    product(2, 2, 2)
    assert device.core.take_records() == []


def test_stats_are_the_session_totals(device: Any) -> None:
    before = shmgemm.stats()
    product(2, 3, 4)
    product(2, 3, 4)
    after = shmgemm.stats()
    assert after["ops"] - before["ops"] == 2
    assert after["macs"] - before["macs"] == 2 * 24
    assert after["cycles"] - before["cycles"] == 2 * ws_cycles(2, 3, 4)
    assert after["clock_hz"] == CLOCK_HZ


def test_the_csv_has_scale_sims_columns_and_says_what_was_simulated(
    device: Any, tmp_path: Path
) -> None:
    with shmgemm.profile() as prof:
        product(5, 7, 9)
        product(4, 4, 4)
    with prof.to_csv(tmp_path / "ops.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["LayerID"] for row in rows] == ["0", "1"]
    assert [int(row["Total Cycles"]) for row in rows] == [ws_cycles(5, 7, 9), ws_cycles(4, 4, 4)]
    first = rows[0]
    assert first["Stall Cycles"] == "0"
    overall = 100 * 5 * 7 * 9 / (ws_cycles(5, 7, 9) * ROWS * COLS)
    assert float(first["Overall Util %"]) == pytest.approx(overall)
    assert float(first["Mapping Efficiency %"]) == pytest.approx(100 * 63 / (4 * ROWS * COLS))
    assert first["Version"] == shmgemm.__version__
    assert (first["Preset"], first["Preset Hash"]) == ("custom", device.hardware.digest)
    assert float(first["Simulated Time (s)"]) == pytest.approx(ws_cycles(5, 7, 9) / CLOCK_HZ)


def test_the_trace_has_simulated_and_host_time_as_two_processes(
    device: Any, tmp_path: Path
) -> None:
    with shmgemm.profile() as prof:
        product(5, 7, 9)
        product(4, 4, 4)
    document = json.loads(prof.to_chrome_trace(tmp_path / "trace.json").read_text())
    jsonschema.validate(document, TRACE_SCHEMA)
    events = document["traceEvents"]
    processes = {e["args"]["name"]: e["pid"] for e in events if e["name"] == "process_name"}
    assert set(processes) == {"simulated time", "host time"}
    complete = [e for e in events if e["ph"] == "X"]
    simulated = [e for e in complete if e["pid"] == processes["simulated time"]]
    us_per_cycle = 1e6 / CLOCK_HZ
    assert [e["dur"] for e in simulated] == pytest.approx(
        [ws_cycles(5, 7, 9) * us_per_cycle, ws_cycles(4, 4, 4) * us_per_cycle]
    )
    assert [e["args"]["cycles"] for e in simulated] == [ws_cycles(5, 7, 9), ws_cycles(4, 4, 4)]
    host = [e for e in complete if e["pid"] == processes["host time"]]
    assert [e["dur"] for e in host] == pytest.approx([op.host_ns / 1e3 for op in prof.records])
    assert host[0]["ts"] == 0
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in complete} <= named


def test_the_trace_has_tracks_for_cores_and_counters(tmp_path: Path) -> None:
    with shmgemm.open(hardware=SYSTOLIC, region=REGION), shmgemm.profile() as prof:
        product(50, 30, 40)
        product(9, 30, 40)
    document = json.loads(prof.to_chrome_trace(tmp_path / "trace.json").read_text())
    jsonschema.validate(document, TRACE_SCHEMA)
    events = [event for event in document["traceEvents"] if event["pid"] == 1]
    tracks = {e["tid"]: e["args"]["name"].strip() for e in events if e["name"] == "thread_name"}
    order = {e["tid"]: e["args"]["sort_index"] for e in events if e["name"] == "thread_sort_index"}
    kinds = ("load", "compute", "store", "stall")
    assert [tracks[tid] for tid in sorted(tracks, key=order.__getitem__)] == [
        "device 0 (custom)",
        *(f"core {core} {kind}" for core in (0, 1) for kind in kinds),
    ]
    us = 1e6 / CLOCK_HZ
    drawn = [
        (tracks[e["tid"]], round(e["ts"] / us), round(e["dur"] / us), *e["args"].values())
        for e in events
        if e["ph"] == "X" and e["cat"] == "timeline"
    ]
    assert sorted(drawn) == sorted(
        (f"core {e.core} {e.kind}", e.start_cycles, e.end_cycles - e.start_cycles, e.amount)
        for op in prof.records
        for e in op.timeline
    )
    integrals = {}
    for name, most in (("array use", 100), ("memory bandwidth", 0.008)):
        values = [(e["ts"], *e["args"].values()) for e in events if e["name"] == name]
        assert all(before[1] != after[1] for before, after in pairwise(values))
        assert values == sorted(values, key=lambda value: value[0])
        assert values[-1][0] <= prof.records[-1].end_cycles * us
        assert values[-1][1] == 0
        assert 0 < max(value for _, value in values) <= most
        integrals[name] = sum(v * (after - at) for (at, v), (after, _) in pairwise(values))
    moved = sum(op.memory_bytes for op in prof.records)
    assert integrals["memory bandwidth"] * 1e3 == pytest.approx(moved, rel=0.1)


def test_a_long_runs_slices_are_merged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with shmgemm.open(hardware=SYSTOLIC, region=REGION), shmgemm.profile() as prof:
        product(200, 200, 200)
    (op,) = prof.records
    count = len(op.timeline)
    monkeypatch.setattr(_trace, "_MOST_SLICES", count // 3)
    monkeypatch.setattr(_trace, "_MOST_COUNTS", 10)
    events = json.loads(prof.to_chrome_trace(tmp_path / "t.json").read_text())["traceEvents"]
    slices = [e for e in events if e["ph"] == "X" and e["cat"] == "timeline"]
    assert count / 4 <= len(slices) <= count / 3 + 8
    moved = sum(e["args"]["bytes"] for e in slices if e["name"] in ("load", "store"))
    assert moved == op.memory_bytes
    assert 2 <= sum(e["name"] == "array use" for e in events) <= 12


def test_ops_that_overlap_on_the_host_get_lanes_of_their_own(device: Any, tmp_path: Path) -> None:
    with shmgemm.profile() as prof:
        product(2, 2, 2)
    (op,) = prof.records
    starts = [(0, 100), (50, 100), (120, 10), (160, 10)]
    prof._records = [replace(op, host_start_ns=start, host_ns=ns) for start, ns in starts]
    events = json.loads(prof.to_chrome_trace(tmp_path / "t.json").read_text())["traceEvents"]
    host = [e for e in events if e["ph"] == "X" and e["pid"] == 2]
    assert [e["tid"] for e in host] == [0, 1, 0, 0]


def test_each_device_has_a_track(tmp_path: Path) -> None:
    with shmgemm.open(hardware=HARDWARE, region=REGION, devices=2), shmgemm.profile() as prof:
        shmgemm.gemm(torch.ones(2, 2), torch.ones(2, 2), sim_device=1)
        shmgemm.gemm(torch.ones(3, 3), torch.ones(3, 3), sim_device=0)
    assert [op.device for op in prof.records] == [1, 0]
    assert prof.span_cycles == prof.cycles  # as each call waits
    assert f"2 devices: {prof.cycles:,} cycles from first to last, 1.00 x" in prof.table()
    assert prof.to_dict()["totals"]["span_cycles"] == prof.cycles
    events = json.loads(prof.to_chrome_trace(tmp_path / "t.json").read_text())["traceEvents"]
    tracks = {
        e["tid"]: e["args"]["name"] for e in events if (e["name"], e["pid"]) == ("thread_name", 1)
    }
    complete = [e for e in events if e["ph"] == "X" and e["pid"] == 1]
    assert [tracks[e["tid"]] for e in complete] == ["device 1 (custom)", "device 0 (custom)"]


def test_a_fresh_engine_is_drawn_after_the_lost_one(device: Any, tmp_path: Path) -> None:
    engine = device.core.engine_pid
    with shmgemm.profile() as prof:
        product(5, 7, 9)
        os.kill(engine, signal.SIGKILL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", shmgemm.FallbackWarning)
            while device.core.engine_pid == engine:
                product(1, 1, 1)
        product(4, 4, 4)
    assert prof.records[-1].start_cycles >= prof.records[0].end_cycles
    assert prof.records[-1].generation == prof.records[0].generation + 1
    events = json.loads(prof.to_chrome_trace(tmp_path / "t.json").read_text())["traceEvents"]
    drawn = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X" and e["pid"] == 1]
    for (_, end), (start, _) in pairwise(drawn):
        assert start >= end - 1e-6


def test_a_profile_keeps_no_session_alive() -> None:
    session = shmgemm.open(hardware=HARDWARE, region=REGION)
    with shmgemm.profile() as prof:
        product(2, 2, 2)
    session.close()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    assert prof.machines[0].preset == "custom"


def test_an_empty_profile_can_be_written(tmp_path: Path) -> None:
    with shmgemm.profile() as prof:
        pass
    assert prof.to_csv(tmp_path / "ops.csv").read_text().strip() == ",".join(COLUMNS)
    document = json.loads(prof.to_chrome_trace(tmp_path / "trace.json").read_text())
    jsonschema.validate(document, TRACE_SCHEMA)
    assert "total" in prof.table()
    assert prof.cycles == 0
    assert prof.coverage.linear is None
    assert prof.coverage.matrix is None


@pytest.mark.parametrize("write", ["to_csv", "to_chrome_trace"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, write: str) -> None:
    with shmgemm.profile() as prof:
        pass
    path = tmp_path / "absent" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        getattr(prof, write)(path)
    assert str(caught.value) == f"cannot write {str(path)!r}: no folder {str(path.parent)!r}"
    with pytest.raises(IsADirectoryError, match=r"^cannot write '.*': is a directory$"):
        getattr(prof, write)(tmp_path)


def test_a_table_can_be_grouped_by_op(device: Any) -> None:
    with shmgemm.profile() as prof:
        product(2, 2, 2)
        product(2, 2, 2)
        product(3, 3, 3)
    lines = prof.table(by="op").splitlines()
    assert lines[2].split()[:4] == ["gemm", "float32", "2", "2x2x2"]
    assert lines[3].split()[:4] == ["gemm", "float32", "1", "3x3x3"]
    total = f"{2 * ws_cycles(2, 2, 2) + ws_cycles(3, 3, 3):,}"
    assert total in lines[5].split()
    with pytest.raises(ValueError, match=r"by='layer'.*module.*op"):
        prof.table(by="layer")


def test_the_summary_is_ready_for_json(device: Any) -> None:
    with shmgemm.profile() as prof:
        product(2, 3, 4)
    summary = json.loads(json.dumps(prof.to_dict()))
    assert summary["totals"]["cycles"] == ws_cycles(2, 3, 4)
    assert summary["modules"][0]["shapes"] == [[2, 3, 4, 1]]
    assert summary["machines"][0]["preset_hash"] == device.hardware.digest
    assert summary["coverage"]["matrix"] == 1
    assert summary["version"] == shmgemm.__version__


@st.composite
def records(draw: st.DrawFn) -> Record:
    big = st.integers(1, 2**32 - 1)
    cycles = draw(st.integers(1, 10**17))
    start = draw(st.integers(0, 10**18))
    name = st.text("abcdefgh_0123456789", min_size=1, max_size=30)
    nothing = {
        level: dict.fromkeys(("a", "b", "c", "bias"), 0) for level in ("scratchpad", "memory")
    }
    m, n, k, batch = (draw(big) for _ in range(4))
    return Record(
        name=draw(name),
        module=".".join(draw(st.lists(name, max_size=6))),
        m=m,
        n=n,
        k=k,
        batch=batch,
        dtype="bfloat16",
        dtype_out="float32",
        device=0,
        session=0,
        start_cycles=start,
        end_cycles=start + cycles,
        busy_cycles=cycles // 2,
        fill_drain_cycles=cycles // 4,
        memory_stall_cycles=0,
        macs=m * n * k * batch,
        peak_macs_per_cycle=-(-m * n * k * batch // cycles),
        folds=1,
        mapping_efficiency=1.0,
        compute_utilization=1.0,
        read_bytes=nothing,
        write_bytes=nothing,
        bytes_copied=draw(st.integers(0, 2**50)),
        host_start_ns=0,
        host_ns=draw(st.integers(0, 10**15)),
        clock_hz=draw(st.integers(1000, 10**11)),
    )


@given(st.lists(records(), max_size=8), st.sampled_from(("module", "op")))
def test_a_table_fits_80_columns_and_shows_every_group(ops: list[Record], by: str) -> None:
    text = table(ops, by=by)
    assert max(map(len, text.splitlines())) <= 80
    keys = {op.module or f"({op.name})" if by == "module" else (op.name, op.shape) for op in ops}
    rows = text.split("-" * 80)[1].strip("\n").splitlines()
    assert len(rows) == len(keys)


def test_csv_and_trace_name_the_stream_and_counters_go_forward(device: Any, tmp_path: Path) -> None:
    stream = shmgemm.Stream()
    with shmgemm.profile() as prof:
        product(5, 7, 9)
        with shmgemm.stream(stream):
            product(5, 7, 9)
    assert [op.stream for op in prof.records] == [0, stream.number]
    with prof.to_csv(tmp_path / "ops.csv").open(encoding="utf-8") as file:
        assert [row["Stream"] for row in csv.DictReader(file)] == ["0", str(stream.number)]
    first, second = prof.records
    prof._records = [  # the host asked for the second one first, and waited for neither
        replace(first, host_start_ns=20, host_ns=100),
        replace(second, host_start_ns=10, host_ns=100),
    ]
    trace = json.loads(prof.to_chrome_trace(tmp_path / "trace.json").read_text())["traceEvents"]
    ops = [event for event in trace if event["ph"] == "X" and event["pid"] == _trace.SIMULATED]
    assert [event["args"].get("stream") for event in ops] == [None, stream.number]
    for name in ("array use", "memory bandwidth"):
        times = [event["ts"] for event in trace if event["ph"] == "C" and event["name"] == name]
        assert times == sorted(times)


def test_profile_is_the_function_even_after_its_module_was_imported() -> None:
    assert isinstance(shmgemm.profile(), Profile)
