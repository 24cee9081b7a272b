"""The same commands on both engines give the same bits and the same cycles."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from harness import SMALL_REGION
from hypothesis import given, settings
from hypothesis import strategies as st

import shmgemm
from shmgemm import abi

PRESETS = ("tpu_v3", "gemmini", "gpu_128", "tiny_4x4_ws", "scalesim_32x32_os")
DEVICES = 2
LONGEST = 48  # of a dimension
BATCH = 2
OPERAND_BYTES = LONGEST * LONGEST * BATCH * 4
MOST_OPS = 24
OUTPUT = {
    abi.Dtype.FLOAT32: abi.Dtype.FLOAT32,
    abi.Dtype.FLOAT16: abi.Dtype.FLOAT16,
    abi.Dtype.BFLOAT16: abi.Dtype.BFLOAT16,
    abi.Dtype.INT8: abi.Dtype.INT32,
}


@dataclass(frozen=True)
class Sent:
    """One command of a stream; `after` counts back from it, 0 for none."""

    op: abi.Op
    dtype: abi.Dtype
    m: int
    n: int
    k: int
    batch: int
    flags: int
    device: int
    stream: int
    after: int
    release: int


flag_sets = st.lists(
    st.sampled_from(
        [
            abi.Flag.TRANSPOSE_A,
            abi.Flag.TRANSPOSE_B,
            abi.Flag.BIAS,
            abi.Flag.ACCUMULATE,
            abi.Flag.FLUSH,
            abi.Flag.BIT_ACCURATE,
        ]
    ),
    max_size=3,
)
dimensions = st.integers(1, LONGEST)
commands = st.builds(
    Sent,
    op=st.sampled_from([abi.Op.GEMM] * 6 + [abi.Op.NOOP, abi.Op.ECHO, abi.Op.FLUSH]),
    dtype=st.sampled_from(list(OUTPUT)),
    m=dimensions,
    n=dimensions,
    k=dimensions,
    batch=st.integers(1, BATCH),
    flags=flag_sets.map(lambda flags: sum(set(flags))),
    device=st.integers(0, DEVICES - 1),
    stream=st.integers(0, 2),
    after=st.integers(0, 3),
    release=st.sampled_from([0, 0, 0, 500, 100_000]),
)


class Side:
    """One engine, with the same operands in its region as the other one."""

    def __init__(self, engine: str, preset: str) -> None:
        self.session = shmgemm.open(
            engine=engine, hardware=preset, devices=DEVICES, region=SMALL_REGION, strict=True
        )
        self.core = self.session.core
        random = np.random.default_rng(3)
        numbers = random.standard_normal(OPERAND_BYTES // 4, dtype=np.float32)
        self.sources = {
            abi.Dtype.FLOAT32: self._block(numbers),
            abi.Dtype.FLOAT16: self._block(numbers.astype(np.float16)),
            abi.Dtype.BFLOAT16: self._block((numbers.view(np.uint32) >> 16).astype(np.uint16)),
            abi.Dtype.INT8: self._block(random.integers(-128, 128, OPERAND_BYTES, np.int8)),
        }
        self.bias = self._block(random.integers(-5, 5, LONGEST, np.int32))
        self.float_bias = self._block(numbers[:LONGEST].copy())
        self.results = [
            self.core.empty((OPERAND_BYTES,), int(abi.Dtype.INT8)) for _ in range(MOST_OPS)
        ]

    def _block(self, values: np.ndarray) -> Any:
        block = self.core.empty((values.nbytes,), int(abi.Dtype.INT8))
        self.view(block)[:] = values.view(np.uint8)
        return block

    @staticmethod
    def view(block: Any) -> np.ndarray:
        return np.asarray(memoryview(block)).view(np.uint8).reshape(-1)

    def record(self, sent: Sent, place: int, ids: list[int], now: int) -> bytes:
        command = abi.Command(op=sent.op, device=sent.device, stream=sent.stream)
        command.flags = sent.flags if sent.op == abi.Op.GEMM else sent.flags & abi.Flag.FLUSH
        if sent.op == abi.Op.FLUSH:
            command.flags = 0
        if sent.after and sent.after <= len(ids):
            command.after = ids[-sent.after] & 0xFFFFFFFF
        command.release_cycles = now + sent.release if sent.release else 0
        if sent.op != abi.Op.GEMM:
            return bytes(command)
        command.dtype_in, command.dtype_out = sent.dtype, OUTPUT[sent.dtype]
        command.m, command.n, command.k, command.batch = sent.m, sent.n, sent.k, sent.batch
        command.lda = sent.m if sent.flags & abi.Flag.TRANSPOSE_A else sent.k
        command.ldb = sent.k if sent.flags & abi.Flag.TRANSPOSE_B else sent.n
        command.ldc = sent.n
        command.stride_a, command.stride_b = sent.m * sent.k, sent.k * sent.n
        command.stride_c = sent.m * sent.n
        command.a = command.b = self.sources[sent.dtype].offset
        command.c = self.results[place].offset
        if sent.flags & abi.Flag.BIAS:
            bias = self.bias if sent.dtype == abi.Dtype.INT8 else self.float_bias
            command.bias = bias.offset
        return bytes(command)

    def play(self, stream: list[Sent]) -> tuple[list[tuple[int, ...]], list[bytes]]:
        """Completions in the order of the commands, and the bytes of all results."""
        for block in self.results:
            self.view(block)[:] = 0
        now = self.core.info()["now_cycles"]
        ids: list[int] = []
        for place, sent in enumerate(stream):
            ids.append(self.core.submit_raw(self.record(sent, place, ids, now)))
        self.core.wait_raw(self.core.submit_raw(bytes(abi.Command(op=abi.Op.FLUSH))))
        answers = [abi.Completion.from_buffer_copy(self.core.wait_raw(id)) for id in ids]
        told = [
            (
                answer.status,
                answer.device,
                answer.start_cycles - now,
                answer.end_cycles - now,
                answer.busy_cycles,
                answer.fill_drain_cycles,
                answer.memory_stall_cycles,
            )
            for answer in answers
        ]
        return told, [self.view(block).tobytes() for block in self.results]


@pytest.fixture(scope="module", params=PRESETS)
def sides(request: pytest.FixtureRequest) -> Iterator[tuple[Side, Side]]:
    both = Side("embedded", request.param), Side("sst", request.param)
    yield both
    for side in both:
        side.session.close()


@given(stream=st.lists(commands, min_size=1, max_size=MOST_OPS))
@settings(max_examples=60)
def test_one_stream_on_both_engines(sides: tuple[Side, Side], stream: list[Sent]) -> None:
    embedded, sst = (side.play(stream) for side in sides)
    assert sst[0] == embedded[0]
    assert sst[1] == embedded[1]
    assert all(status == abi.Status.OK for status, *_ in sst[0])


def test_large_products_spread_over_devices(sides: tuple[Side, Side]) -> None:
    random = np.random.default_rng(5)
    a = random.standard_normal((300, 257), dtype=np.float32)
    b = random.standard_normal((257, 310), dtype=np.float32)
    seen = []
    for side in sides:
        records, products = [], []
        for device in range(DEVICES):
            c = np.empty((300, 310), np.float32)
            views = [(x.ctypes.data, 0, x.shape[1], 1) for x in (a, b, c)]
            done = side.core.gemm("big", 300, 310, 257, 1, 1, 1, *views, device=device)
            records.append((done.end_cycles - done.start_cycles, done.busy_cycles))
            products.append(c.tobytes())
        seen.append((records, products))
    assert seen[0] == seen[1]
    assert len(set(seen[0][1])) == 1
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, atol=1e-3)


def test_info_names_the_engine(sides: tuple[Side, Side]) -> None:
    infos = [side.session.info() for side in sides]
    assert [info["engine"] for info in infos] == ["embedded", "sst"]
    for name in ("devices", "model", "clock_hz", "peak_macs_per_cycle", "dtypes"):
        assert infos[0][name] == infos[1][name]


def test_waiting_takes_no_cycles(sides: tuple[Side, Side]) -> None:
    side = sides[1]
    before = side.session.info()["now_cycles"]
    time.sleep(0.3)
    assert side.session.info()["now_cycles"] == before
