"""Streams and events: the rule of simulated time against a model of its own, and their errors."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmgemm

DEVICES = 3
LIMIT_S = 30.0
Records = Callable[[], list[Any]]
examples = settings(max_examples=40)
ONES = {size: np.ones((size, size), "float32") for size in (8, 40, 150)}


@pytest.fixture(scope="module")
def device() -> Iterator[Any]:
    with shmgemm.open(region=64 << 20, devices=DEVICES) as opened:
        yield opened


pytestmark = pytest.mark.usefixtures("device")


def send(size: int, stream: shmgemm.Stream | None = None, device: int = 0) -> Any:
    with shmgemm.stream(stream):
        return shmgemm.gemm_async(ONES[size], ONES[size], sim_device=device)


def in_order(records: Records, futures: list[Any]) -> list[Any]:
    """The records of futures, in the order in which they were sent."""
    for future in futures:
        assert (future.result(LIMIT_S) == future.result().shape[0]).all()
    found = sorted(records(), key=lambda record: record.host_start_ns)
    assert len(found) == len(futures)
    return found


def test_two_devices_overlap_one_queues(records: Records) -> None:
    one, two = shmgemm.Stream(), shmgemm.Stream()
    first, second = in_order(records, [send(40, one, 0), send(40, two, 1)])
    assert first.start_cycles == second.start_cycles
    assert (first.stream, second.stream) == (one.number, two.number)
    first, second = in_order(records, [send(40, one, 0), send(40, two, 0)])
    assert second.start_cycles == first.end_cycles


def test_the_devices_own_streams_overlap(records: Records) -> None:
    first, second = in_order(records, [send(40, None, 0), send(40, None, 1)])
    assert first.start_cycles == second.start_cycles
    assert (first.stream, second.stream) == (0, 0)


def test_one_stream_on_two_devices_keeps_its_order(records: Records) -> None:
    stream = shmgemm.Stream()
    first, second = in_order(records, [send(40, stream, 0), send(8, stream, 1)])
    assert second.start_cycles == first.end_cycles


def test_waiting_for_an_event_and_a_stream(records: Records) -> None:
    one, two = shmgemm.Stream(), shmgemm.Stream()
    futures = [send(40, one, 0)]
    two.wait_event(one.record_event())
    futures += [send(8, one, 0), send(8, two, 1)]
    one.wait_stream(two)
    futures.append(send(8, one, 2))
    first, after, other, last = in_order(records, futures)
    assert after.start_cycles == other.start_cycles == first.end_cycles
    assert last.start_cycles == max(after.end_cycles, other.end_cycles)


def test_several_events(records: Records) -> None:
    streams = [shmgemm.Stream() for _ in range(4)]
    sizes = (8, 150, 40)
    futures = [send(sizes[i], streams[i], i) for i in range(3)]
    for stream in streams[:3]:
        streams[3].wait_stream(stream)
    futures.append(send(8, streams[3], 0))
    *inputs, last = in_order(records, futures)
    assert last.start_cycles == max(record.end_cycles for record in inputs)


def test_an_event_of_a_devices_own_stream(records: Records) -> None:
    futures = [send(150, None, 1)]
    shmgemm.current_stream(0).wait_stream(shmgemm.current_stream(1))
    futures.append(send(8, None, 0))
    first, second = in_order(records, futures)
    assert second.start_cycles == first.end_cycles


steps = st.one_of(
    st.tuples(
        st.just("send"),
        st.integers(0, 3),
        st.integers(0, DEVICES - 1),
        st.sampled_from(sorted(ONES)),
    ),
    st.tuples(st.just("record"), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("synchronize")),
)


@examples
@given(st.lists(steps, max_size=40))
def test_any_order_of_streams_and_events(records: Records, program: list[tuple[Any, ...]]) -> None:
    """start = the latest of arrival, what is waited for, the stream's previous op, its device."""
    records()
    streams = [shmgemm.Stream() for _ in range(4)]
    events: dict[int, Any] = {}
    marks: dict[int, int | None] = {}  # event -> op
    last: dict[int, int] = {}  # stream -> op
    waits: dict[int, list[int]] = {}
    inputs: list[tuple[list[int], int, int]] = []  # (ops before it, device, epoch)
    futures: list[Any] = []
    epoch = 0
    for step in program:
        kind, *rest = step
        if kind == "synchronize":
            shmgemm.synchronize()
            epoch += 1
        elif kind == "record":
            number, event = rest
            events[event] = streams[number].record_event(events.get(event))
            marks[event] = last.get(number)
        elif kind == "wait" and rest[1] in events:
            number, event = rest
            streams[number].wait_event(events[event])
            if (mark := marks[event]) is not None:
                waits.setdefault(number, []).append(mark)
        elif kind == "send":
            number, device, size = rest
            before = waits.pop(number, [])
            before += [last[number]] if number in last else []
            last[number] = len(futures)
            inputs.append((before, device, epoch))
            futures.append(send(size, streams[number], device))
    shmgemm.synchronize()
    found = in_order(records, futures)
    assert [record.device for record in found] == [device for _, device, _ in inputs]
    check_starts(found, inputs)


def check_starts(found: list[Any], inputs: list[tuple[list[int], int, int]]) -> None:
    arrival = [0] * len(found)
    if found:
        base = min(record.start_cycles for record in found)
        for i, (_, _, epoch) in enumerate(inputs):
            done = [r.end_cycles for r, (_, _, e) in zip(found, inputs, strict=True) if e < epoch]
            arrival[i] = max([base, *done])
    ready = [
        max([arrival[i], *(found[j].end_cycles for j in before)])
        for i, (before, _, _) in enumerate(inputs)
    ]
    for device in range(DEVICES):
        mine = [i for i, (_, number, _) in enumerate(inputs) if number == device]
        mine.sort(key=lambda i: found[i].start_cycles)
        free = 0
        for position, i in enumerate(mine):
            assert found[i].start_cycles == max(ready[i], free), (device, position)
            free = found[i].end_cycles


# --- the host's side --------------------------------------------------------------------------


def test_query_and_synchronize() -> None:
    stream = shmgemm.Stream()
    assert stream.query()
    assert stream.synchronize()
    future = send(150, stream)
    event = stream.record_event()
    assert event.synchronize(LIMIT_S)
    assert event.query()
    assert future.done()
    assert stream.synchronize(LIMIT_S)
    futures = [send(150, stream) for _ in range(20)]
    assert not stream.synchronize(0)
    shmgemm.synchronize()
    assert stream.query()
    assert all(future.done() for future in futures)


def test_nesting_and_exceptions() -> None:
    outer, inner = shmgemm.Stream(), shmgemm.Stream()
    with shmgemm.stream(outer):
        with contextlib.suppress(RuntimeError), shmgemm.stream(inner):
            assert shmgemm.current_stream().number == inner.number
            raise RuntimeError("of the program")
        assert shmgemm.current_stream().number == outer.number
        with shmgemm.stream(None):
            assert shmgemm.current_stream().number == outer.number
        with shmgemm.stream(shmgemm.streams.Stream._of_device(1)):
            assert [shmgemm.current_stream(i).number for i in range(2)] == [0, 1]
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(shmgemm.current_stream().number))
        other.start()
        other.join()
        assert seen == [0]
    assert shmgemm.current_stream(2).number == 2
    assert repr(outer) == f"<shmgemm.Stream {outer.number}>"


def test_an_event_that_was_not_recorded() -> None:
    event = shmgemm.Event()
    for ask in (event.wait, event.query, event.synchronize):
        with pytest.raises(shmgemm.Unsupported, match="not recorded"):
            ask()
    event.record()
    assert event.query()


@pytest.mark.parametrize("number", [-1, 256])
def test_a_device_that_cannot_be(number: int) -> None:
    with pytest.raises(shmgemm.Unsupported, match="device"):
        shmgemm.current_stream(number)


def test_another_session_and_a_closed_one() -> None:
    here = shmgemm.Stream()
    event_here = here.record_event()
    with shmgemm.open(region=4 << 20) as session:
        stream = shmgemm.Stream()
        event = stream.record_event()
        with pytest.raises(shmgemm.Unsupported, match="another session"):
            stream.wait_event(event_here)
        with (
            pytest.raises(shmgemm.Unsupported, match="another session"),
            shmgemm.stream(here),
        ):
            pass
        future = send(8, stream)
        session.close()
        uses: list[Callable[[], Any]] = [
            stream.query,
            stream.synchronize,
            stream.record_event,
            lambda: stream.wait_event(event_here),
            lambda: here.wait_event(event),
            lambda: send(8, stream),
            event.query,
            event.synchronize,
            future.result,
        ]
        for use in uses:
            with pytest.raises(shmgemm.SessionClosed):
                use()
        assert repr(stream).endswith("closed>")
    assert (send(8, here).result() == 8).all()
