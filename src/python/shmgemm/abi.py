"""The records of the shared region as ctypes see them, written down apart from the C header.

A test compares every size, offset and number with what C11 and C++ compilers make of
`shmgemm_abi.h`. Tools and the raw path (`Session.submit_raw`) build and read records with it.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag

MAGIC = int.from_bytes(b"SHMGEMM1", "little")
ABI_MAJOR = 1
ABI_MINOR = 1

MIN_REGION_BYTES = 4 << 20
PAGE_BYTES = 4096
HEAP_ALIGN = 2 << 20
BLOCK_ALIGN = 64
LARGE_BLOCK_BYTES = 1 << 20
MAX_QUEUE_PAIRS = 14
MAX_PEERS = 15
ENGINE_PEER = 0
MAX_ARENAS = 8
MAX_ENGINES = 8
RING_SLOTS = 256
QUEUE_PAIR_BYTES = 65536
FLUSH_EVERY = 128
REPORT_BYTES = 16384


class Op(IntEnum):
    NOOP = 0
    ECHO = 1
    COMPUTE = 2
    READ = 3
    WRITE = 4
    RESET = 5
    GET_INFO = 6
    CONFIGURE = 7
    GEMM = 8
    FLUSH = 9


class Configure(IntEnum):
    MAX_COMPUTE_UNITS = 0


class ArenaState(IntEnum):
    FREE = 0
    LEASED = 1
    GUEST = 2


class Dtype(IntEnum):
    NONE = 0
    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4
    INT32 = 5


class Flag(IntFlag):
    TRANSPOSE_A = 0x01
    TRANSPOSE_B = 0x02
    BIAS = 0x04
    ACCUMULATE = 0x08
    FLUSH = 0x10
    BIT_ACCURATE = 0x20
    ALL = 0x3F


class Status(IntEnum):
    OK = 0
    ERROR = 1
    BUSY = 2
    INVALID = 3
    TIMEOUT = 4
    NO_DEVICE = 5
    UNSUPPORTED = 6
    BAD_GENERATION = 16
    BAD_OP = 17
    BAD_DTYPE = 18
    BAD_FLAGS = 19
    BAD_DEVICE = 20
    BAD_SHAPE = 21
    BAD_LEADING_DIMENSION = 22
    BAD_ALIGNMENT = 23
    OUT_OF_BOUNDS = 24
    OVERLAP = 25
    BAD_REPORT = 26
    DUPLICATE_ID = 27
    BAD_ARGUMENT = 28
    BAD_ID = 29


class PeerState(IntEnum):
    NONE = 0
    INIT = 1
    READY = 2
    DRAINING = 3
    DEAD = 4


class ControlKind(IntEnum):
    READY = 1
    FAILED = 2
    SHUTDOWN = 3


class ReportKind(IntEnum):
    GEMM = 1
    INFO = 2


class Activity(IntEnum):
    LOAD = 0
    COMPUTE = 1
    STORE = 2
    STALL = 3


_U8, _U16, _U32, _U64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64
_TRAFFIC = (_U64 * 4) * 2  # [level][operand]


class _Operands(ctypes.LittleEndianStructure):
    _fields_ = [("a", _U64), ("b", _U64), ("c", _U64), ("bias", _U64)]


class _Arguments(ctypes.Union):
    _anonymous_ = ("operands",)
    _fields_ = [("operands", _Operands), ("arg", _U64 * 4)]


class Command(ctypes.LittleEndianStructure):
    _anonymous_ = ("arguments",)
    _fields_ = [
        ("id", _U64),
        ("generation", _U32),
        ("op", _U8),
        ("dtype_in", _U8),
        ("dtype_out", _U8),
        ("device", _U8),
        ("flags", _U32),
        ("stream", _U32),
        ("m", _U32),
        ("n", _U32),
        ("k", _U32),
        ("batch", _U32),
        ("lda", _U32),
        ("ldb", _U32),
        ("ldc", _U32),
        ("report", _U32),
        ("stride_a", _U64),
        ("stride_b", _U64),
        ("stride_c", _U64),
        ("arguments", _Arguments),
        ("release_cycles", _U64),
        ("after", _U32),
        ("seq", _U32),
    ]


class Completion(ctypes.LittleEndianStructure):
    _fields_ = [
        ("id", _U64),
        ("generation", _U32),
        ("status", _U16),
        ("device", _U16),
        ("start_cycles", _U64),
        ("end_cycles", _U64),
        ("busy_cycles", _U64),
        ("fill_drain_cycles", _U64),
        ("memory_stall_cycles", _U64),
        ("report_bytes", _U32),
        ("seq", _U32),
    ]


class Report(ctypes.LittleEndianStructure):
    _fields_ = [("kind", _U32), ("bytes", _U32)]


class GemmReport(ctypes.LittleEndianStructure):
    _fields_ = [
        ("head", Report),
        ("macs", _U64),
        ("peak_macs_per_cycle", _U64),
        ("folds", _U64),
        ("mapping_efficiency", ctypes.c_double),
        ("compute_utilization", ctypes.c_double),
        ("read_bytes", _TRAFFIC),
        ("write_bytes", _TRAFFIC),
        ("timeline_count", _U32),
        ("reserved", _U32),
    ]


class TimelineEntry(ctypes.LittleEndianStructure):
    _fields_ = [
        ("core", _U32),
        ("kind", _U32),
        ("start_cycles", _U64),
        ("end_cycles", _U64),
        ("amount", _U64),
    ]


class Info(ctypes.LittleEndianStructure):
    _fields_ = [
        ("head", Report),
        ("abi_major", _U32),
        ("abi_minor", _U32),
        ("devices", _U32),
        ("threads", _U32),
        ("clock_hz", _U64),
        ("peak_macs_per_cycle", _U64),
        ("now_cycles", _U64),
        ("ops", _U64),
        ("rejects", _U64),
        ("busy_cycles", _U64),
        ("dtypes", _U64),
        ("link_commands", _U64),
        ("link_sojourn_ns", _U64),
        ("link_bytes_in", _U64),
        ("link_bytes_out", _U64),
        ("memory_bytes", _U64),
        ("max_compute_units", _U64),
        ("engine", ctypes.c_char * 16),
        ("model", ctypes.c_char * 48),
        ("version", ctypes.c_char * 32),
    ]


class Peer(ctypes.LittleEndianStructure):
    _fields_ = [
        ("state", _U32),
        ("sleeping", _U32),
        ("heartbeat", _U64),
        ("pid", _U32),
        ("reserved", _U8 * 44),
    ]


class Arena(ctypes.LittleEndianStructure):
    _fields_ = [("offset", _U64), ("bytes", _U64), ("owner", _U32), ("state", _U32)]


class Header(ctypes.LittleEndianStructure):
    _fields_ = [
        ("magic", _U64),
        ("abi_major", _U16),
        ("abi_minor", _U16),
        ("header_bytes", _U32),
        ("region_bytes", _U64),
        ("region_id", _U64 * 2),
        ("generation", _U32),
        ("queue_pair_count", _U32),
        ("queue_pair_offset", _U64),
        ("heap_offset", _U64),
        ("heap_bytes", _U64),
        ("arena_count", _U32),
        ("reserved0", _U32),
        ("reserved1", _U8 * 176),
        ("arenas", Arena * MAX_ARENAS),
        ("reserved2", _U8 * 64),
        ("peers", Peer * MAX_PEERS),
    ]


class QueuePair(ctypes.LittleEndianStructure):
    _fields_ = [("commands", Command * RING_SLOTS), ("completions", Completion * RING_SLOTS)]


class Control(ctypes.LittleEndianStructure):
    _fields_ = [
        ("kind", _U32),
        ("abi_major", _U16),
        ("abi_minor", _U16),
        ("pid", _U32),
        ("text_bytes", _U32),
        ("text", ctypes.c_char * 240),
    ]
