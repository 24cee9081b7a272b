"""Timelines as rates: against a count cycle by cycle, and against what an op's record says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import shmgemm
from shmgemm import abi
from shmgemm._activity import KINDS, Stretch, bandwidth, placed, span_cycles, stretches
from shmgemm.profiling import Machine, Record

START, CYCLES, PEAK = 1000, 60, 8
NOTHING = dict.fromkeys(("a", "b", "c", "bias"), 0)


def machine(cores: int = 1, **parameters: str) -> Machine:
    return Machine("made up", "0", 10**9, {"model": "systolic", "cores": str(cores), **parameters})


def record(entries: list[tuple[int, str, int, int, int]], macs: int, moved: int) -> Record:
    """An op of CYCLES cycles; entries count from its start."""
    packed = b"".join(
        bytes(abi.TimelineEntry(core, KINDS.index(kind), START + start, START + end, amount))
        for core, kind, start, end, amount in entries
    )
    return Record(
        name="gemm",
        module="",
        m=1,
        n=1,
        k=macs,
        batch=1,
        dtype="float32",
        dtype_out="float32",
        device=0,
        session=0,
        start_cycles=START,
        end_cycles=START + CYCLES,
        busy_cycles=30,
        fill_drain_cycles=10,
        memory_stall_cycles=15,
        macs=macs,
        peak_macs_per_cycle=PEAK,
        folds=1,
        mapping_efficiency=1.0,
        compute_utilization=1.0,
        read_bytes={"scratchpad": NOTHING, "memory": NOTHING | {"a": moved}},
        write_bytes={"scratchpad": NOTHING, "memory": NOTHING},
        bytes_copied=0,
        host_start_ns=0,
        host_ns=1,
        clock_hz=10**9,
        timeline_data=packed,
    )


@st.composite
def lanes(draw: st.DrawFn) -> list[tuple[int, str, int, int, int]]:
    entries = []
    for core in range(2):
        for kind in KINDS:
            times = sorted(draw(st.sets(st.integers(0, CYCLES), max_size=6)))
            for start, end in zip(times[::2], times[1::2], strict=False):
                most = 500 if kind in ("load", "store") else end - start
                entries.append((core, kind, start, end, draw(st.integers(1, most))))
    return entries


def by_cycle(entries: list[tuple[int, str, int, int, int]], *kinds: str) -> Any:
    counts = np.zeros(CYCLES)
    for _, kind, start, end, amount in entries:
        if kind in kinds:
            counts[start:end] += amount / (end - start)
    return counts


def sampled(found: list[Stretch], name: str) -> Any:
    """Means over each cycle."""
    counts = np.zeros(CYCLES)
    for one in found:
        for cycle in range(int(one.start) - START, min(CYCLES, int(one.end) + 1 - START)):
            begin, end = START + cycle, START + cycle + 1
            overlap = max(0.0, min(one.end, end) - max(one.start, begin))
            counts[cycle] += overlap * getattr(one, name)
    return counts


@given(lanes())
def test_rates_are_those_of_a_count_cycle_by_cycle(
    entries: list[tuple[int, str, int, int, int]],
) -> None:
    busy, moved = by_cycle(entries, "compute"), by_cycle(entries, "load", "store")
    macs = int(PEAK * busy.sum() / 4)  # half of the array, on two cores
    found = stretches(record(entries, macs, int(moved.sum().round())), machine(2, memory="ideal"))
    if not entries:
        assert len(found) == 1
        return
    np.testing.assert_allclose(sampled(found, "busy"), busy / 2, atol=1e-9)
    np.testing.assert_allclose(sampled(found, "stall"), by_cycle(entries, "stall") / 2, atol=1e-9)
    np.testing.assert_allclose(sampled(found, "bytes_per_cycle"), moved, atol=1e-6)
    assert sampled(found, "macs").sum() == pytest.approx(macs / PEAK)
    assert sampled(found, "dispatch").tolist() == [1] * 5 + [0] * (CYCLES - 5)


@given(lanes(), st.integers(1, 40))
def test_nothing_is_served_faster_than_the_memory(
    entries: list[tuple[int, str, int, int, int]], limit: int
) -> None:
    moved = by_cycle(entries, "load", "store")
    op = record([entry for entry in entries if entry[1] != "stall"], 0, int(moved.sum().round()))
    if not op.timeline or not moved.any():
        return
    served, waiting = [], 0.0
    for rate in moved:
        served.append(min(limit, waiting + rate))
        waiting += rate - served[-1]
    found = stretches(op, machine(memory_bw=f"{limit}GB/s"))
    assert max(one.bytes_per_cycle for one in found) <= limit + 1e-9
    np.testing.assert_allclose(
        np.cumsum(sampled(found, "bytes_per_cycle")), np.cumsum(served), atol=1e-6
    )


@given(lanes(), st.integers(1, CYCLES))
def test_coarse_stretches_keep_the_sums(
    entries: list[tuple[int, str, int, int, int]], shortest: int
) -> None:
    op = record(entries, 100, int(by_cycle(entries, "load", "store").sum().round()))
    fine, coarse = (stretches(op, machine(2, memory="ideal"), limit) for limit in (0, shortest))
    assert all(one.end - one.start >= shortest for one in coarse[:-1])
    for found in (fine, coarse):
        assert (found[0].start, found[-1].end) == (START, START + CYCLES)
        assert all(before.end == after.start for before, after in pairwise(found))
    if shortest == CYCLES:
        assert [one.busy for one in coarse] == [op.busy_cycles / CYCLES]  # the op's own means
    else:
        for name in ("macs", "busy", "stall", "dispatch", "bytes_per_cycle"):
            sums = [sampled(found, name).sum() for found in (fine, coarse)]
            assert sums[0] == pytest.approx(sums[1], abs=1e-6)


def test_an_op_without_a_timeline_is_its_means() -> None:
    (one,) = stretches(record([], 240, 600), machine())
    assert (one.start, one.end) == (START, START + CYCLES)
    assert (one.macs, one.busy, one.stall) == (0.5, 0.5, 0.25)
    assert one.dispatch == pytest.approx(5 / 60)
    assert one.bytes_per_cycle == 10


@pytest.mark.parametrize("cores", [1, 3, 64])
def test_a_real_ops_stretches_add_up_to_its_record(cores: int) -> None:
    hardware = {"model": "systolic", "rows": 4, "cols": 4, "clock": "1GHz", "memory_bw": "8GB/s"}
    with (
        shmgemm.open(hardware=hardware | {"cores": cores}, region=16 << 20),
        shmgemm.profile() as prof,
    ):
        shmgemm.gemm(torch.ones(90, 70), torch.ones(70, 110))
    (op,) = prof.records
    found = stretches(op, prof.machines[0])
    totals = {
        name: sum(getattr(one, name) * (one.end - one.start) for one in found)
        for name in ("macs", "busy", "bytes_per_cycle")
    }
    assert totals["macs"] == pytest.approx(op.macs / op.peak_macs_per_cycle)
    tolerance = 0.01 if cores <= 50 else 0.05  # not all cores are kept
    assert totals["bytes_per_cycle"] == pytest.approx(op.memory_bytes, rel=tolerance)
    assert totals["macs"] <= totals["busy"] <= op.cycles
    kept = {entry.core for entry in op.timeline}
    assert kept == set(range(min(cores, 50)))
    assert max(one.bytes_per_cycle for one in found) <= 8 + 1e-9


def test_the_memory_limit_is_the_models_bandwidth() -> None:
    assert bandwidth(machine(memory_bw="450GB/s")) == 450 * 10**9
    assert bandwidth(machine(memory_bw="450GB/s", memory="ideal")) is None
    assert bandwidth(Machine("other", "0", 1, {"model": "scalesim_ws"})) is None


def test_a_fresh_engines_ops_come_after_the_lost_ones() -> None:
    first = record([], 1, 1)
    second = replace(first, start_cycles=START + 1, end_cycles=START + 1 + CYCLES, generation=1)
    third = replace(second, generation=2, start_cycles=3 * START, end_cycles=3 * START + CYCLES)
    ops = [third, second, first]
    assert [start for _, start in placed(ops)] == [START, START + CYCLES, 3 * START]
    assert [op for op, _ in placed(ops)] == [first, second, third]


def test_overlapping_futures_come_in_the_order_in_which_they_started() -> None:
    first = replace(record([], 1, 1), host_ns=100)
    later = replace(first, start_cycles=START + CYCLES, end_cycles=START + 2 * CYCLES)
    ops = [replace(later, host_start_ns=10), replace(first, host_start_ns=20)]
    assert [start for _, start in placed(ops)] == [START, START + CYCLES]
    assert [op.host_start_ns for op, _ in placed(ops)] == [20, 10]


def test_the_span_of_devices_that_overlap() -> None:
    first = record([], 1, 1)
    other = replace(first, device=1, start_cycles=START + 10, end_cycles=START + 10 + CYCLES)
    assert span_cycles([]) == 0
    assert span_cycles([other]) == CYCLES
    assert span_cycles([other, first]) == CYCLES + 10
    after = replace(first, generation=1)  # on device 0, behind `first`
    assert span_cycles([other, after, first]) == 2 * CYCLES
