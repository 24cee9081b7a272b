"""The C validator against a slow oracle that enumerates every byte an operand names.

The oracle knows no formula for extents: it walks batch, rows and columns and collects
addresses. Small heaps make both verdicts common; a second test goes to the edges of 32 and 64 bits.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import hypothesis.strategies as st
from c_abi import Limits
from hypothesis import event, given, settings

from shmgemm import abi
from shmgemm.abi import Dtype, Flag, Op, Status

HEAP_BEGIN = 64
ELEMENT_BYTES = {
    Dtype.FLOAT32: 4,
    Dtype.FLOAT16: 2,
    Dtype.BFLOAT16: 2,
    Dtype.INT8: 1,
    Dtype.INT32: 4,
}
FLOATS = [Dtype.FLOAT32, Dtype.FLOAT16, Dtype.BFLOAT16]
PAIRS = [(x, y) for x in FLOATS for y in FLOATS] + [(Dtype.INT8, Dtype.INT32)]


@dataclass(frozen=True)
class Matrix:
    offset: int
    rows: int
    columns: int
    leading: int
    stride: int
    batch: int
    element_bytes: int

    def entry(self, index: int) -> range:
        """From the first to the last byte of one matrix of the batch: every element is visited."""
        first = last = self.offset + index * self.stride * self.element_bytes
        for row in range(self.rows):
            for column in range(self.columns):
                element = index * self.stride + row * self.leading + column
                address = self.offset + element * self.element_bytes
                first, last = min(first, address), max(last, address + self.element_bytes - 1)
        return range(first, last + 1)

    def bounding(self) -> range:
        entries = [self.entry(index) for index in range(self.batch)]
        return range(min(x.start for x in entries), max(x.stop for x in entries))


def shares_a_byte(x: range, y: range) -> bool:
    return not set(x).isdisjoint(y)


def matrices(command: abi.Command) -> dict[str, Matrix]:
    flags = Flag(command.flags)
    element = ELEMENT_BYTES[Dtype(command.dtype_in)]
    a = (command.k, command.m) if Flag.TRANSPOSE_A in flags else (command.m, command.k)
    b = (command.n, command.k) if Flag.TRANSPOSE_B in flags else (command.k, command.n)
    batch = command.batch
    found = {
        "a": Matrix(command.a, *a, command.lda, command.stride_a, batch, element),
        "b": Matrix(command.b, *b, command.ldb, command.stride_b, batch, element),
        "c": Matrix(
            command.c,
            command.m,
            command.n,
            command.ldc,
            command.stride_c,
            batch,
            ELEMENT_BYTES[Dtype(command.dtype_out)],
        ),
    }
    if Flag.BIAS in flags:
        found["bias"] = Matrix(command.bias, 1, command.n, command.n, 0, 1, 4)
    return found


def violations(command: abi.Command, heap: range) -> set[Status]:
    """Every rule of bounds, alignment and overlap that a GEMM of known dtypes and flags breaks."""
    found = matrices(command)
    wrong: set[Status] = set()
    for matrix in found.values():
        if matrix.leading < matrix.columns:
            wrong.add(Status.BAD_LEADING_DIMENSION)
        if matrix.offset % matrix.element_bytes:
            wrong.add(Status.BAD_ALIGNMENT)
    ranges = {name: matrix.bounding() for name, matrix in found.items()}
    if not all(set(extent) <= set(heap) for extent in ranges.values()):
        wrong.add(Status.OUT_OF_BOUNDS)
    entries = [found["c"].entry(index) for index in range(command.batch)]
    if any(shares_a_byte(x, y) for i, x in enumerate(entries) for y in entries[:i]):
        wrong.add(Status.OVERLAP)
    if any(shares_a_byte(ranges["c"], ranges[name]) for name in ranges if name != "c"):
        wrong.add(Status.OVERLAP)
    if not Flag.BIAS & command.flags and command.bias:
        wrong.add(Status.BAD_ARGUMENT)
    if command.report:
        report = range(command.report * 64, command.report * 64 + abi.REPORT_BYTES)
        if not set(report) <= set(heap):
            wrong.add(Status.BAD_REPORT)
        if shares_a_byte(report, ranges["c"]):
            wrong.add(Status.OVERLAP)
        if any(shares_a_byte(report, ranges[name]) for name in ranges if name != "c"):
            wrong.add(Status.BAD_REPORT)
    return wrong


@st.composite
def small_gemms(draw: st.DrawFn) -> tuple[abi.Command, int]:
    """A GEMM, and the end of a heap that it fits or just fails to fit."""
    heap_end = (
        HEAP_BEGIN + draw(st.integers(1, 600)) + draw(st.sampled_from([0, abi.REPORT_BYTES + 104]))
    )
    size = st.integers(1, 4)
    offset = st.one_of(
        st.integers(0, heap_end // 4 + 4).map(lambda word: word * 4), st.integers(0, heap_end + 4)
    )
    m, n, k, batch = draw(size), draw(size), draw(size), draw(size)
    flags = draw(st.sampled_from([Flag(0), Flag.TRANSPOSE_A, Flag.TRANSPOSE_B]))
    flags |= draw(st.sampled_from([Flag(0), Flag.BIAS]))
    dtype_in, dtype_out = draw(st.sampled_from(PAIRS))
    wider = st.sampled_from([0, 0, 0, 1, 3, -1])
    stride = st.one_of(st.integers(0, 20), st.just(m * n))
    command = abi.Command(
        id=1,
        generation=1,
        op=Op.GEMM,
        dtype_in=dtype_in,
        dtype_out=dtype_out,
        flags=flags,
        m=m,
        n=n,
        k=k,
        batch=batch,
        lda=(m if Flag.TRANSPOSE_A in flags else k) + draw(wider),
        ldb=(k if Flag.TRANSPOSE_B in flags else n) + draw(wider),
        ldc=n + draw(wider),
        stride_a=draw(stride),
        stride_b=draw(stride),
        stride_c=draw(stride),
        report=draw(st.one_of(st.just(0), st.integers(1, heap_end // 64 + 1))),
    )
    command.a, command.b, command.c = draw(offset), draw(offset), draw(offset)
    command.bias = draw(offset) if Flag.BIAS in flags else draw(st.sampled_from([0, 0, 0, 64]))
    return command, heap_end


@given(small_gemms())
@settings(max_examples=1500, deadline=None)
def test_small_gemms(validator: ctypes.CDLL, case: tuple[abi.Command, int]) -> None:
    command, heap_end = case
    limits = Limits(HEAP_BEGIN, heap_end, 1, 1)
    status = validator.shmgemm_validate_command(command, limits)
    wrong = violations(command, range(HEAP_BEGIN, heap_end))
    event("accepted" if not wrong else "rejected")
    assert status in (wrong or {Status.OK})


@st.composite
def packed_gemms(draw: st.DrawFn) -> tuple[abi.Command, int]:
    """Operands one behind the other: legal by construction, then one offset may be moved."""
    dtype_in, dtype_out = draw(st.sampled_from(PAIRS))
    m, n, k, batch = (draw(st.integers(1, 4)) for _ in range(4))
    flags = Flag(draw(st.integers(0, 7)))
    pad = st.integers(0, 2)
    lda = (m if Flag.TRANSPOSE_A in flags else k) + draw(pad)
    ldb = (k if Flag.TRANSPOSE_B in flags else n) + draw(pad)
    command = abi.Command(
        id=1, generation=1, op=Op.GEMM, dtype_in=dtype_in, dtype_out=dtype_out, flags=flags
    )
    command.m, command.n, command.k, command.batch = m, n, k, batch
    command.lda, command.ldb, command.ldc = lda, ldb, n + draw(pad)
    command.stride_a, command.stride_b = draw(st.integers(0, 24)), draw(st.integers(0, 24))
    command.stride_c = (m - 1) * command.ldc + n + draw(pad)
    cursor = HEAP_BEGIN
    order = draw(
        st.permutations(["a", "b", "c", "bias"] if Flag.BIAS in flags else ["a", "b", "c"])
    )
    for name in order:
        element = matrices(command)[name].element_bytes
        cursor += -cursor % element
        setattr(command, name, cursor)
        cursor = matrices(command)[name].bounding().stop
    moved = draw(st.sampled_from([None, *order]))
    if moved:
        shift = draw(st.sampled_from([-4, -2, -1, 1, 2, 4]))
        setattr(command, moved, getattr(command, moved) + shift)
    return command, cursor


@given(packed_gemms())
@settings(max_examples=1500, deadline=None)
def test_packed_gemms(validator: ctypes.CDLL, case: tuple[abi.Command, int]) -> None:
    command, heap_end = case
    limits = Limits(HEAP_BEGIN, heap_end, 1, 1)
    status = validator.shmgemm_validate_command(command, limits)
    wrong = violations(command, range(HEAP_BEGIN, heap_end))
    event("accepted" if not wrong else "rejected")
    assert status in (wrong or {Status.OK})


EDGES_32 = [1, 2, 3, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
EDGES_64 = [0, 1, 2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 64, 2**64 - 4, 2**64 - 1]


def last_byte(matrix: Matrix) -> int:
    """Big-integer arithmetic, for what is too large to enumerate."""
    elements = (matrix.batch - 1) * matrix.stride + (matrix.rows - 1) * matrix.leading
    return matrix.offset + (elements + matrix.columns) * matrix.element_bytes - 1


@given(
    sizes=st.lists(st.sampled_from(EDGES_32), min_size=7, max_size=7),
    wide=st.lists(st.sampled_from(EDGES_64), min_size=6, max_size=6),
    heap_end=st.sampled_from([2**21, 2**33, 2**63, 2**64 - 1]),
    flags=st.sampled_from([Flag(0), Flag.TRANSPOSE_A, Flag.TRANSPOSE_B, Flag.BIAS]),
)
@settings(max_examples=1500, deadline=None)
def test_nothing_wraps_at_the_edges_of_32_and_64_bits(
    validator: ctypes.CDLL, sizes: list[int], wide: list[int], heap_end: int, flags: Flag
) -> None:
    command = abi.Command(id=1, generation=1, op=Op.GEMM, flags=flags)
    command.dtype_in = command.dtype_out = Dtype.FLOAT32
    command.m, command.n, command.k, command.batch = sizes[:4]
    command.lda, command.ldb, command.ldc = sizes[4:]
    command.stride_a, command.stride_b, command.stride_c = wide[:3]
    command.a, command.b, command.c = wide[3:]
    command.bias = 64 if Flag.BIAS in flags else 0
    status = validator.shmgemm_validate_command(command, Limits(64, heap_end, 1, 1))
    if status == Status.OK:
        macs = command.m * command.n * command.k * command.batch
        assert max(sizes) < 2**31 and macs < 2**64
        for matrix in matrices(command).values():
            assert matrix.offset >= 64 and last_byte(matrix) < heap_end
            assert matrix.leading >= matrix.columns
    if max(sizes) >= 2**31:
        assert status in (Status.BAD_SHAPE, Status.BAD_LEADING_DIMENSION)


@given(st.binary(min_size=128, max_size=128))
@settings(max_examples=500, deadline=None)
def test_any_bytes_get_a_known_status(validator: ctypes.CDLL, record: bytes) -> None:
    command = abi.Command.from_buffer_copy(record)
    command.generation = 1
    status = Status(validator.shmgemm_validate_command(command, Limits(64, 2**22, 1, 255)))
    assert validator.shmgemm_status_text(status) != b"unknown status"


def test_every_status_has_its_own_words(validator: ctypes.CDLL) -> None:
    texts = {validator.shmgemm_status_text(status) for status in Status}
    assert len(texts) == len(Status)
    assert b"unknown status" not in texts
    for number in (7, 15, 30, 2**32 - 1):
        assert validator.shmgemm_status_text(number) == b"unknown status"
