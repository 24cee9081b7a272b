"""The compiled core: sessions, blocks, the models' tables. Torch-free, private to the package."""

from collections.abc import Callable, Sequence
from typing import Any

ABI_VERSION: tuple[int, int]
MODEL_INTERFACE_VERSION: int

class ParameterInfo:
    name: str
    unit: str
    default: str
    meaning: str
    minimum: int
    maximum: int
    legal: str
    """The legal range as text: "from 1 to 65536", or the choices."""
    choices: list[str]

class ModelInfo:
    name: str
    summary: str
    parameters: list[ParameterInfo]
    file: str
    """The plug-in it came from; "" where it is built in."""

def load_plugin(path: str) -> None:
    """Make a shared object's models known to this process; an unchanged file again is no error.

    Raises ValueError, and leaves the models as they were: the message says which file, what it is
    and what was expected.
    """

def models() -> list[ModelInfo]: ...
def device_parameters() -> list[ParameterInfo]: ...
def check_hardware(parameters: dict[str, str]) -> dict[str, str]:
    """Validate a flat hardware description; returns it with every default filled in.

    Raises ValueError naming key, value and legal range.
    """

def map_gemm(
    parameters: dict[str, str], m: int, n: int, k: int, batch: int = 1, *, input_bytes: int = 4
) -> dict[str, Any]:
    """How the model `systolic` cuts a GEMM (docs/systolic.md).

    Keys: tile (m, n, k of all but those at an edge), parts (of a tile over a core's arrays, by m
    and n), blocks, steps, inner ("n" or "m": what changes from a block to the next). ValueError
    for another model.
    """

def step_array(dataflow: str, rows: int, cols: int, tiles: Sequence[tuple[int, int, int]]) -> int:
    """Cycles of array tiles (m, n, k) back to back on the register-level array.

    From the first element that enters to the last result. ValueError for a tile that does not fit
    the array, sides above 64, streams above 256.
    """

def simulate_gemm(
    parameters: dict[str, str],
    m: int,
    n: int,
    k: int,
    batch: int = 1,
    *,
    input_bytes: int = 4,
    output_bytes: int = 4,
    bias: bool = False,
    accumulate: bool = False,
    shared_a: bool = False,
    shared_b: bool = False,
) -> dict[str, Any]:
    """Timing only, no session and no values: the model's report for one GEMM.

    Operands lie densely; of a shared one all entries of the batch are the same (batch stride 0).

    Keys: cycles, busy_cycles, fill_drain_cycles, memory_stall_cycles, dispatch_cycles, macs,
    peak_macs_per_cycle, clock_hz, folds, mapping_efficiency, compute_utilization (both 0..1), and
    read_bytes, write_bytes as [level][operand]. Raises ValueError for a dimension outside
    1..2^32-1 or a bad parameter, OverflowError where a figure would exceed 2^63-1, ShmgemmError
    where the model throws, never ends the GEMM, or reports cycles that did not pass. Ctrl-C works.
    """

def parse_quantity(
    name: str, text: str, unit: str, minimum: int = 0, maximum: int = 2**64 - 1
) -> int:
    """`"256MiB"` in "bytes" is 268435456; units are those of ParameterInfo.unit.

    Raises ValueError with name, text and what is legal.
    """

class Block:
    """A typed n-d array in the region: buffer protocol and `__dlpack__`.

    bfloat16 exports its bits as uint16 through the buffer protocol and as bfloat16 through DLPack.
    """

    shape: tuple[int, ...]
    dtype: int
    nbytes: int
    offset: int
    ptr: int
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __dlpack__(self, *, stream: Any = ..., **kwargs: Any) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class Completion:
    id: int
    status: int
    device: int
    start_cycles: int
    end_cycles: int
    busy_cycles: int
    fill_drain_cycles: int
    memory_stall_cycles: int

class OpRecord:
    name: str
    scope: str
    m: int
    n: int
    k: int
    batch: int
    dtype_in: int
    dtype_out: int
    device: int
    stream: int
    generation: int
    start_cycles: int
    end_cycles: int
    busy_cycles: int
    fill_drain_cycles: int
    memory_stall_cycles: int
    host_start_ns: int
    host_ns: int
    bytes_copied: int
    macs: int
    peak_macs_per_cycle: int
    folds: int
    mapping_efficiency: float
    compute_utilization: float
    read_bytes: list[list[int]]
    write_bytes: list[list[int]]
    timeline: bytes
    """Entries of 32 bytes as in abi.TimelineEntry, by core, kind and start; checked."""

_View = tuple[int, int, int, int]  # address, batch stride, row stride, column stride (elements)

class GemmCall:
    """A product as the device is told of it; it must stay as it is until it is done."""

    bytes_copied: int  # of its operands by the caller: counted with what is staged

    def __init__(
        self,
        name: str,
        m: int,
        n: int,
        k: int,
        batch: int,
        dtype_in: int,
        dtype_out: int,
        a: _View,
        b: _View,
        c: _View,
        bias: int = 0,
        accumulate: bool = False,
        device: int = 0,
        after: Future | None = None,
    ) -> None: ...

class Future:
    def done(self) -> bool: ...
    def wait(self, timeout_s: float) -> bool:
        """False where it passed first; below 0: no limit."""
    def result(self) -> Completion: ...
    def cancel(self) -> bool: ...

class StreamMark: ...

FIRST_STREAM: int

def set_current_stream(stream: int) -> None:
    """Of this thread; 0: each device's own."""

def current_stream() -> int: ...

class Session:
    def __init__(
        self,
        *,
        engine_path: str,
        engine_words: list[str] = ...,
        parameters: dict[str, str] = ...,
        plugins: list[str] = ...,
        region_bytes: int = ...,
        devices: int = 1,
        threads: int = 0,
        timeout_s: float = 5.0,
        bit_accurate: bool = False,
        debug: bool = False,
        link_path: str = "",
        guest_arena_bytes: int = 0,
        guest: Callable[[int], str] | None = None,
        processes: int = 1,
        clients: int = 0,
    ) -> None: ...
    @staticmethod
    def connect(
        *,
        server: str,
        region_path: str = "",
        connections: int = 4,
        devices: int = 1,
        timeout_s: float = 5.0,
        bit_accurate: bool = False,
        debug: bool = False,
    ) -> Session: ...
    @staticmethod
    def attach(
        *,
        path: str,
        timeout_s: float = 5.0,
        bit_accurate: bool = False,
        debug: bool = False,
    ) -> Session: ...
    def empty(self, shape: tuple[int, ...], dtype: int) -> Block: ...
    def contains(self, address: int, nbytes: int) -> bool: ...
    def gemm(
        self,
        name: str,
        m: int,
        n: int,
        k: int,
        batch: int,
        dtype_in: int,
        dtype_out: int,
        a: _View,
        b: _View,
        c: _View,
        bias: int = 0,
        accumulate: bool = False,
        device: int = 0,
    ) -> Completion:
        """Blocks until C holds the product, without the GIL; Ctrl-C works. `bias`: address or 0."""
    def gemm_async(self, call: GemmCall) -> Future: ...
    def gemm_batch(self, calls: list[GemmCall]) -> list[Completion]:
        """One submission; returns when all are there."""
    def mark(self, stream: int) -> StreamMark: ...
    def wait_for(self, stream: int, mark: StreamMark) -> None: ...
    def reached(self, mark: StreamMark) -> bool: ...
    def wait_until(self, mark: StreamMark, timeout_s: float) -> bool:
        """False where it passed first; below 0: no limit."""
    def noop(self, device: int = 0) -> Completion: ...
    def echo(self, x: int, y: int, z: int) -> tuple[int, int, int]: ...
    def flush(self) -> Completion: ...
    def reset(self, device: int = 0) -> None: ...
    def info(self, device: int = 0) -> dict[str, Any]: ...
    def submit_raw(self, command: bytes) -> int:
        """Submit a 128-byte record; id, generation and seq are filled in. Returns the id."""
    def wait_raw(self, id: int, timeout_s: float = 0.0) -> bytes: ...
    def stats(self) -> dict[str, int]: ...
    def set_profiling(self, on: bool) -> None: ...
    def take_records(self) -> list[OpRecord]: ...
    def close(self) -> None: ...
    closed: bool
    engine_pid: int
    engine_pids: list[int]
    """Of each engine process, 0 where none runs; `engine_pid` is the first."""
    region_fd: int
    generation: int
    devices: int
    parameters: dict[str, str]

def set_current_session(session: Session | None) -> None: ...
def current_session() -> Session:
    """The current one; opens a default one through the opener."""

def current_session_or_none() -> Session | None: ...
def set_session_opener(opener: Callable[[], Session]) -> None: ...
def set_program_ending() -> None:
    """From now on a thread other than the main one that makes a device call stops for good."""

def set_scope(scope: str) -> None: ...
def scope() -> str: ...
