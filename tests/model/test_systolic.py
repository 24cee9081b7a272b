"""The model `systolic` against its brute-force twin, in every figure, and its properties."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import twin
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twin import Machine, Product

from shmgemm import _core

GB = 10**9
LARGE = 1 << 24


def parameters(machine: Machine) -> dict[str, str]:
    return {
        "model": "systolic",
        "rows": str(machine.rows),
        "cols": str(machine.cols),
        "dataflow": machine.dataflow,
        "arrays": str(machine.arrays),
        "cores": str(machine.cores),
        "scratchpad_a": f"{machine.scratchpad_a}B",
        "scratchpad_b": f"{machine.scratchpad_b}B",
        "accumulator": f"{machine.accumulator}B",
        "memory_latency": str(machine.memory_latency),
        "dispatch": str(machine.dispatch),
        "clock": f"{machine.clock}Hz",
        "memory": "ideal" if machine.memory_bw is None else "bandwidth",
        **({} if machine.memory_bw is None else {"memory_bw": f"{machine.memory_bw}B/s"}),
    }


def model(machine: Machine, product: Product) -> dict[str, Any]:
    return _core.simulate_gemm(
        parameters(machine),
        product.m,
        product.n,
        product.k,
        product.batch,
        input_bytes=product.e,
        output_bytes=product.output_bytes,
        bias=product.bias,
        accumulate=product.accumulate,
        shared_a=product.shared_a,
        shared_b=product.shared_b,
    )


def check(machine: Machine, product: Product) -> None:
    want = twin.simulate(machine, product)
    got = model(machine, product)
    for name in ("cycles", "folds"):
        assert got[name] == getattr(want, name), name
    for name in ("busy", "fill_drain", "memory_stall", "dispatch"):
        assert got[f"{name}_cycles"] == getattr(want, name), name
    assert got["read_bytes"] == want.read_bytes
    assert got["write_bytes"] == want.write_bytes
    for name in ("mapping_efficiency", "compute_utilization"):
        assert math.isclose(got[name], getattr(want, name), rel_tol=1e-12), name


# --- what is drawn


@st.composite
def sizes(draw: st.DrawFn, least: int) -> int:
    """Bytes of a buffer that needs `least`: exactly that, somewhat more, or plenty."""
    return draw(
        st.one_of(
            st.just(least),
            st.integers(least, 8 * least),
            st.integers(least, 64 * least),
            st.just(LARGE),
        )
    )


@st.composite
def bandwidths(draw: st.DrawFn, clock: int) -> int | None:
    """Mostly a few bytes a cycle, and mostly not a whole number of them."""
    return draw(
        st.one_of(
            st.none(),
            st.integers(clock // 3, 4 * clock),
            st.integers(clock, 64 * clock),
            st.integers(1, 16).map(lambda b: b * clock),
            st.sampled_from((450 * GB, 45 * GB, 9 * GB // 2, GB)),
        )
    )


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    rows, cols = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    dataflow = draw(st.sampled_from(("ws", "is", "os")))
    clock = draw(st.sampled_from((940 * 10**6, GB, 700 * 10**6, 10**7 + 19)))
    gm, gn = {"ws": (1, cols), "is": (cols, 1), "os": (rows, cols)}[dataflow]
    return Machine(
        rows=rows,
        cols=cols,
        dataflow=dataflow,
        arrays=draw(st.integers(1, 4)),
        cores=draw(st.integers(1, 4)),
        scratchpad_a=draw(sizes(8 * gm * rows)),
        scratchpad_b=draw(sizes(8 * gn * rows)),
        accumulator=draw(sizes(8 * gm * gn)),
        memory_bw=draw(bandwidths(clock)),
        memory_latency=draw(st.integers(0, 50)),
        dispatch=draw(st.integers(0, 20)),
        clock=clock,
    )


SIDES = st.one_of(st.integers(1, 12), st.integers(1, 60))
BYTES = st.sampled_from((1, 2, 4))
products = st.builds(
    Product,
    m=SIDES,
    n=SIDES,
    k=SIDES,
    batch=st.integers(1, 3),
    e=BYTES,
    output_bytes=BYTES,
    bias=st.booleans(),
    accumulate=st.booleans(),
    shared_a=st.booleans(),
    shared_b=st.booleans(),
)


def peak(machine: Machine) -> int:
    return machine.rows * machine.cols * machine.arrays * machine.cores


def macs(product: Product) -> int:
    return product.m * product.n * product.k * product.batch


# --- against the twin


@settings(max_examples=300)
@given(machines(), products)
def test_equals_the_twin(machine: Machine, product: Product) -> None:
    assume(macs(product) <= 8000 * machine.rows * machine.cols * machine.arrays)
    check(machine, product)


TPU = Machine(
    rows=128,
    cols=128,
    dataflow="ws",
    arrays=2,
    cores=1,
    scratchpad_a=6 << 20,
    scratchpad_b=6 << 20,
    accumulator=4 << 20,
    memory_bw=450 * GB,
    memory_latency=100,
    dispatch=500,
    clock=940 * 10**6,
)
SMALL = replace(TPU, rows=16, cols=16, scratchpad_a=1 << 15, scratchpad_b=1 << 15, accumulator=8192)
PRODUCT = Product(m=300, n=200, k=500, batch=1, e=4, output_bytes=4)


@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
@pytest.mark.parametrize(
    ("machine", "product"),
    [
        (TPU, PRODUCT),
        (TPU, replace(PRODUCT, batch=3, shared_b=True, bias=True)),
        (replace(TPU, cores=4, memory_bw=90 * GB), replace(PRODUCT, accumulate=True, e=2)),
        (replace(TPU, memory_bw=None, arrays=1), PRODUCT),
        (replace(TPU, rows=64, cols=256, arrays=3), replace(PRODUCT, m=700, k=300, e=1)),
        (replace(SMALL, cores=2), replace(PRODUCT, m=130, n=90)),
        (SMALL, replace(PRODUCT, m=1, n=500, bias=True, accumulate=True)),
        (SMALL, replace(PRODUCT, n=1)),
    ],
)
def test_equals_the_twin_on_larger_products(
    machine: Machine, product: Product, dataflow: str
) -> None:
    check(replace(machine, dataflow=dataflow), product)


TINY = Machine(
    rows=1,
    cols=4,
    dataflow="ws",
    arrays=1,
    cores=1,
    scratchpad_a=8,
    scratchpad_b=32,
    accumulator=32,
    memory_bw=GB,
    memory_latency=0,
    dispatch=0,
    clock=GB,
)


def test_a_narrow_block_may_end_and_be_stored_before_the_wide_one_it_follows() -> None:
    """4 columns that begin at 6 end at 10, the fifth from 7 ends at 8 and is stored first."""
    product = Product(m=1, n=5, k=1, batch=1, e=1, output_bytes=1)
    assert twin.simulate(TINY, product).cycles == 14
    check(TINY, product)


def test_nothing_stalls_where_a_wide_block_ends_last() -> None:
    product = Product(m=1, n=5, k=1, batch=1, e=1, output_bytes=1)
    assert model(replace(TINY, memory_bw=None), product)["memory_stall_cycles"] == 0


# --- properties


@given(machines(), products)
def test_a_report_is_consistent(machine: Machine, product: Product) -> None:
    report = model(machine, product)
    kinds = ("busy_cycles", "fill_drain_cycles", "memory_stall_cycles", "dispatch_cycles")
    assert sum(report[kind] for kind in kinds) == report["cycles"]
    assert report["macs"] == macs(product)
    assert report["peak_macs_per_cycle"] == peak(machine)
    assert report["cycles"] * peak(machine) >= report["macs"]
    assert 0 < report["compute_utilization"] <= 1
    assert 0 < report["mapping_efficiency"] <= 1


@given(machines(), products)
def test_every_operand_moves_at_least_once(machine: Machine, product: Product) -> None:
    report = model(machine, product)
    reads, writes = report["read_bytes"][1], report["write_bytes"][1]
    m, n, k, batch = product.m, product.n, product.k, product.batch
    c_bytes = m * n * batch * product.output_bytes
    assert reads[0] >= m * k * product.e * (1 if product.shared_a else batch)
    assert reads[1] >= k * n * product.e * (1 if product.shared_b else batch)
    assert reads[2] == (c_bytes if product.accumulate else 0)
    assert reads[3] >= n * 4 if product.bias else reads[3] == 0
    assert writes == [0, 0, c_bytes, 0]
    if machine.memory_bw is not None:
        bytes_moved = sum(reads) + sum(writes)
        assert report["cycles"] * machine.memory_bw >= bytes_moved * machine.clock


@given(machines(), products)
def test_ideal_memory_never_stalls_a_single_step(machine: Machine, product: Product) -> None:
    """Of several steps one may have to wait for the half of a scratchpad to be free."""
    machine = replace(
        machine, memory_bw=None, scratchpad_a=LARGE, scratchpad_b=LARGE, accumulator=LARGE, cores=1
    )
    product = replace(product, batch=1)
    mapping = twin.mapping_of(machine, product)
    assume(mapping.tk == product.k)
    assert (mapping.tm, mapping.tn) == (product.m, product.n)
    assert model(machine, product)["memory_stall_cycles"] == 0


@given(machines(), products, st.integers(0, 50))
def test_less_latency_is_not_slower(machine: Machine, product: Product, latency: int) -> None:
    """Where one core works on one block; otherwise loads and stores may change places."""
    machine = replace(machine, cores=1, accumulator=LARGE)
    product = replace(product, batch=1)
    mapping = twin.mapping_of(machine, product)
    assume((mapping.tm, mapping.tn) == (product.m, product.n))
    less = replace(machine, memory_latency=min(latency, machine.memory_latency))
    assert model(less, product)["cycles"] <= model(machine, product)["cycles"]


def test_every_run_is_the_same() -> None:
    machine = replace(SMALL, cores=3, memory_bw=17 * GB + 3)
    product = replace(PRODUCT, m=90, n=70, k=110, batch=2, bias=True)
    first = model(machine, product)
    assert all(model(machine, product) == first for _ in range(100))
