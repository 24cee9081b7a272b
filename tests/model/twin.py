"""The brute-force twin of the timing model `systolic`, written from docs/systolic.md alone.

Every cycle is a turn of one loop: arrays take in a stationary row and an element, DMA engines make
what requests they may, the memory serves its bytes of that cycle. No step has a closed form here;
begins, ends and stalls come out of counters. Slow by nature: an oracle for small products.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from math import ceil, floor, isqrt

SUM_BYTES = 4
BIAS_BYTES = 4
A, B, C, BIAS = range(4)


@dataclass(frozen=True)
class Machine:
    """The parameters of the model, in base units; `memory_bw` None is `ideal` memory."""

    rows: int
    cols: int
    dataflow: str
    arrays: int
    cores: int
    scratchpad_a: int
    scratchpad_b: int
    accumulator: int
    memory_bw: int | None
    memory_latency: int
    dispatch: int
    clock: int


@dataclass(frozen=True)
class Product:
    """One GEMM: `e` and `output_bytes` are bytes of an element, `shared_*` a batch stride of 0."""

    m: int
    n: int
    k: int
    batch: int
    e: int
    output_bytes: int
    bias: bool = False
    accumulate: bool = False
    shared_a: bool = False
    shared_b: bool = False


# --- the mapping


@dataclass(frozen=True)
class Mapping:
    tm: int
    tn: int
    tk: int
    am: int
    an: int
    n_before_m: bool  # blocks: batch entry, then n, then m


def up(x: int, g: int) -> int:
    return -(-x // g) * g


def down(x: int | Fraction, g: int) -> int:
    return floor(x / g) * g if isinstance(x, Fraction) else x // g * g


def granules(machine: Machine) -> tuple[int, int, int]:
    r, c = machine.rows, machine.cols
    return (*{"ws": (1, c), "is": (c, 1), "os": (r, c)}[machine.dataflow], r)


def pieces(total: int, size: int) -> Iterator[int]:
    """`total` cut into pieces of `size`, the last one as small as it is."""
    for begin in range(0, total, size):
        yield min(size, total - begin)


@dataclass(frozen=True)
class ArrayTile:
    r: int
    c: int
    s: int


def array_tiles(machine: Machine, m: int, n: int, k: int) -> list[ArrayTile]:
    """The array tiles of m x n x k on one array, in their order."""
    rows, columns, stream = {"ws": (k, n, m), "is": (k, m, n), "os": (m, n, k)}[machine.dataflow]
    return [
        ArrayTile(r, c, stream)
        for c in pieces(columns, machine.cols)
        for r in pieces(rows, machine.rows)
    ]


def occupancy(tiles: list[ArrayTile]) -> int:
    return sum(max(tile.s, tile.r) for tile in tiles)


def share_of_arrays(machine: Machine, tm: int, tn: int, tk: int) -> tuple[int, int, int]:
    """(am, an, occupancy) of the best way to share a tile out to the arrays of a core."""
    best = (0, 0, -1)
    for an in range(machine.arrays, 0, -1):
        am = machine.arrays // an
        cycles = occupancy(array_tiles(machine, ceil_div(tm, am), ceil_div(tn, an), tk))
        if best[2] < 0 or cycles < best[2]:
            best = (am, an, cycles)
    return best


def ceil_div(x: int, y: int) -> int:
    return -(-x // y)


def cycles_per_byte(machine: Machine) -> Fraction:
    """Of the memory, for one of the device's cores."""
    if machine.memory_bw is None:
        return Fraction(0)
    return Fraction(machine.clock * machine.cores, machine.memory_bw)


def output_tile(machine: Machine, product: Product) -> tuple[int, int]:
    """Tm and Tn."""
    M, N, e = product.m, product.n, product.e
    gm, gn, gk = granules(machine)
    # 1. balance
    side = 2**31
    if machine.memory_bw is not None:
        macs = machine.rows * machine.cols * machine.arrays
        side = min(side, ceil(2 * e * macs * cycles_per_byte(machine)))
    side = max(side, machine.rows + machine.cols)
    x, y = up(side, gm), up(side, gn)
    tm, tn = min(M, x), min(N, y)
    if tm < x:
        tn = min(N, max(y, down(Fraction(x * y, tm), gn)))
    elif tn < y:
        tm = min(M, max(x, down(Fraction(x * y, tn), gm)))
    # 2. scratchpads
    k0 = min(product.k, gk)
    half_a, half_b = Fraction(machine.scratchpad_a, 2), Fraction(machine.scratchpad_b, 2)
    if tm * k0 * e > half_a:
        tm = down(half_a / (k0 * e), gm)
    if tn * k0 * e > half_b:
        tn = down(half_b / (k0 * e), gn)
    # 3. accumulator
    sums = Fraction(machine.accumulator, 2) / SUM_BYTES
    if tm * tn > sums:
        wanted = max(min(isqrt(floor(sums)), floor(sums / gm)), floor(sums / tm))
        if wanted < tn:
            tn = max(min(N, gn), down(wanted, gn))
        if floor(sums / tn) < tm:
            tm = down(floor(sums / tn), gm)
    # 4. cores
    while ceil_div(M, tm) * ceil_div(N, tn) * product.batch < machine.cores and (
        tm > gm or tn > gn
    ):
        in_m, in_n = ceil_div(tm, gm), ceil_div(tn, gn)
        if in_m >= in_n:
            tm = ceil_div(in_m, 2) * gm
        else:
            tn = ceil_div(in_n, 2) * gn
    # 5. even tiles
    tm = min(M, up(ceil_div(M, ceil_div(M, tm)), gm))
    tn = min(N, up(ceil_div(N, ceil_div(N, tn)), gn))
    return tm, tn


def step_terms(machine: Machine, product: Product, tm: int, tn: int) -> int:
    """Tk."""
    K, e = product.k, product.e
    gk = granules(machine)[2]
    room = min(
        Fraction(machine.scratchpad_a, 2) / (tm * e), Fraction(machine.scratchpad_b, 2) / (tn * e)
    )
    most = K if room >= K else down(room, gk)
    tk = gk
    while tk < most:
        loads = ceil((tm + tn) * tk * e * cycles_per_byte(machine))
        if max(loads, share_of_arrays(machine, tm, tn, tk)[2]) >= 8 * (machine.rows + machine.cols):
            break
        tk *= 2
    tk = min(tk, most)
    return min(K, up(ceil_div(K, ceil_div(K, tk)), gk))


def mapping_of(machine: Machine, product: Product) -> Mapping:
    tm, tn = output_tile(machine, product)
    tk = step_terms(machine, product, tm, tn)
    am, an, _ = share_of_arrays(machine, tm, tn, tk)
    in_a, in_b = product.m * product.k, product.k * product.n
    saves = in_a * ceil_div(product.n, tn) + in_b < in_a + in_b * ceil_div(product.m, tm)
    return Mapping(tm, tn, tk, am, an, tk >= product.k and saves)


# --- what a core has to do


@dataclass(eq=False)
class Request:
    """To the memory, of one tile; `done` is the cycle in which it is usable."""

    operand: int
    size: int
    done: int | None = None


@dataclass(eq=False)
class Load(Request):
    block: Block | None = None  # of C and bias
    before: Load | None = None  # of A and B: the one that was in the same half
    users: int = 0  # steps that have yet to free the half


@dataclass(eq=False)
class Step:
    m: int
    n: int
    k: int
    block: Block
    last_of_block: bool = False
    tiles: list[ArrayTile] = field(default_factory=list)  # of the largest part
    needs: list[Load] = field(default_factory=list)
    ready: bool = False
    begun: int = 0  # array tiles
    ends: int = 0  # latest so far
    frees: list[tuple[int, Load]] = field(default_factory=list)  # when, which load's half

    def is_running(self, now: int) -> bool:
        return bool(self.frees) or self.begun < len(self.tiles) or self.ends > now


@dataclass(eq=False)
class Block:
    m: int
    n: int
    before: Block | None  # that was in the same half of the accumulator
    store: Request | None = None

    def is_stored(self, now: int) -> bool:
        return self.store is not None and self.store.done is not None and self.store.done <= now

    def has_room(self, now: int) -> bool:
        return self.before is None or self.before.is_stored(now)


Place = tuple[int, int, int]  # batch entry, and the tile's first row and column


def block_places(mapping: Mapping, product: Product) -> list[tuple[int, int, int]]:
    """(batch entry, first row, first column) of every block, in their order."""
    rows, columns = range(0, product.m, mapping.tm), range(0, product.n, mapping.tn)
    if mapping.n_before_m:
        return [(b, m, n) for b in range(product.batch) for n in columns for m in rows]
    return [(b, m, n) for b in range(product.batch) for m in rows for n in columns]


def share_of_core(core: int, cores: int, places: list[Place]) -> list[Place]:
    each, extra = divmod(len(places), cores)
    begin = core * each + min(core, extra)
    return places[begin : begin + each + (core < extra)]


class Work:
    """One core's steps and loads, in order, and what they amount to."""

    def __init__(self, machine: Machine, product: Product, mapping: Mapping, places: list[Place]):
        self.machine, self.product, self.mapping = machine, product, mapping
        self.steps: list[Step] = []
        self.loads: list[Load] = []
        self.blocks: list[Block] = []
        self.occupancy = 0
        self.folds = 0
        self.used = 0  # PEs, over all folds
        self.scratchpad_reads = [0, 0]
        self.sums_written = 0
        self._got: list[tuple[Place, Load] | None] = [None, None]
        self._before: list[list[Load]] = [[], []]
        for place in places:
            self._add_block(place)

    def _add_block(self, place: Place) -> None:
        entry, m0, n0 = place
        product, mapping = self.product, self.mapping
        m, n = min(mapping.tm, product.m - m0), min(mapping.tn, product.n - n0)
        block = Block(m, n, self.blocks[-2] if len(self.blocks) >= 2 else None)
        self.blocks.append(block)
        for k0 in range(0, product.k, mapping.tk):
            step = Step(m, n, min(mapping.tk, product.k - k0), block)
            self._need(step, A, (0 if product.shared_a else entry, m0, k0), m * step.k)
            self._need(step, B, (0 if product.shared_b else entry, k0, n0), step.k * n)
            if k0 == 0 and product.accumulate:
                step.needs.append(Load(C, m * n * product.output_bytes, block=block))
                self.loads.append(step.needs[-1])
            if k0 == 0 and product.bias:
                step.needs.append(Load(BIAS, n * BIAS_BYTES, block=block))
                self.loads.append(step.needs[-1])
            self.steps.append(step)
            self._lay_out(step)
        self.steps[-1].last_of_block = True

    def _need(self, step: Step, operand: int, place: Place, elements: int) -> None:
        got = self._got[operand]
        if got is None or got[0] != place:
            earlier = self._before[operand]
            load = Load(operand, elements * self.product.e)
            load.before = earlier[-2] if len(earlier) >= 2 else None
            earlier.append(load)
            self.loads.append(load)
            got = self._got[operand] = (place, load)
        got[1].users += 1
        step.needs.append(got[1])

    def _lay_out(self, step: Step) -> None:
        part_m, part_n = ceil_div(step.m, self.mapping.am), ceil_div(step.n, self.mapping.an)
        step.tiles = array_tiles(self.machine, part_m, part_n, step.k)
        self.occupancy += occupancy(step.tiles)
        for m in pieces(step.m, part_m):
            for n in pieces(step.n, part_n):
                for tile in array_tiles(self.machine, m, n, step.k):
                    self._count(tile)

    def _count(self, tile: ArrayTile) -> None:
        e, dataflow = self.product.e, self.machine.dataflow
        self.folds += 1
        self.used += tile.r * tile.c
        streamed, other = (B, A) if dataflow == "is" else (A, B)
        self.scratchpad_reads[streamed] += e * tile.r * tile.s
        self.scratchpad_reads[other] += e * tile.c * (tile.s if dataflow == "os" else tile.r)
        self.sums_written += tile.c * (tile.r if dataflow == "os" else tile.s)


# --- the memory


class Memory:
    """First come, first served. Counts in clock-ths of a byte, so that a cycle's share is whole."""

    def __init__(self, machine: Machine):
        self.bandwidth = machine.memory_bw
        self.clock = machine.clock
        self.latency = machine.memory_latency
        self.queue: deque[tuple[Request, list[int]]] = deque()
        self.bytes = [[0] * 4, [0] * 4]  # loaded, stored

    def make(self, request: Request, store: bool) -> None:
        self.bytes[store][request.operand] += request.size
        self.queue.append((request, [request.size * self.clock]))

    def serve(self, now: int) -> None:
        """The bytes of cycle `now`."""
        budget = self.bandwidth or 0
        while budget and self.queue:
            request, left = self.queue[0]
            served = min(budget, left[0])
            budget -= served
            left[0] -= served
            if left[0] == 0:
                request.done = now + 1 + self.latency
                self.queue.popleft()


# --- a core, cycle by cycle


class Core:
    def __init__(self, machine: Machine, work: Work, memory: Memory):
        self.machine, self.work, self.memory = machine, work, memory
        self.ideal = machine.memory_bw is None
        self.os = machine.dataflow == "os"
        self.stores_made: list[Request] = []
        self.loads_made: list[Load] = []
        self.next_load = 0
        self.next_ready = 0
        self.running: list[Step] = []  # begun, and not done with
        self.stores_left = list(work.blocks)
        # the array
        self.steps_left = deque(work.steps)  # with tiles that have not begun
        self.waiting: ArrayTile | None = work.steps[0].tiles[0] if work.steps else None
        self.tile: ArrayTile | None = None  # the present one
        self.streamed = 0  # its elements, in row 0
        self.rows_loaded = 0  # stationary rows of the waiting one
        self.rows_possible = 0  # had its step been ready
        self.release = 0  # os: the cycle in which column 0 of the present tile is released
        # the tally
        self.busy = 0
        self.stall = 0
        self.end: int | None = None if work.steps else 0

    def act(self, now: int) -> None:
        """All that happens at `now`, until nothing more does; then the cycle passes."""
        while (
            self.finish_steps(now)
            | self.make_loads(now)
            | self.make_ready(now)
            | self.begin_tile(now)
        ):
            pass
        for store in self.stores_made:
            self.memory.make(store, True)
        for load in self.loads_made:
            self.memory.make(load, False)
        self.stores_made, self.loads_made = [], []
        if not self.stores_left and all(block.is_stored(now) for block in self.work.blocks):
            self.end = now
        else:
            self.pass_cycle(now)

    def finish_steps(self, now: int) -> bool:
        happened = False
        for step in self.running:
            if step.frees:
                for free_at, load in step.frees:
                    if free_at == now:
                        load.users -= 1
                        happened = True
                step.frees = [free for free in step.frees if free[0] > now]
            if step.ends == now and step.last_of_block and step.begun == len(step.tiles):
                happened |= self.store(step.block, now)
        if happened:
            self.running = [step for step in self.running if step.is_running(now)]
        return happened

    def store(self, block: Block, now: int) -> bool:
        if block.store is not None:
            return False
        size = block.m * block.n * self.work.product.output_bytes
        block.store = Request(C, size, now if self.ideal else None)
        self.stores_made.append(block.store)
        self.stores_left.remove(block)
        return True

    def make_loads(self, now: int) -> bool:
        happened = False
        while self.next_load < len(self.work.loads):
            load = self.work.loads[self.next_load]
            if load.block is not None and not load.block.has_room(now):
                break
            if load.before is not None and load.before.users > 0:
                break
            load.done = now if self.ideal else None
            self.loads_made.append(load)
            self.next_load += 1
            happened = True
        return happened

    def make_ready(self, now: int) -> bool:
        happened = False
        while self.next_ready < len(self.work.steps):
            step = self.work.steps[self.next_ready]
            for load in step.needs:
                if load.done is None or load.done > now:
                    return happened
            if not step.block.has_room(now):
                break
            step.ready = happened = True
            self.next_ready += 1
        return happened

    def could_begin(self, tile: ArrayTile, rows: int, now: int) -> bool:
        if self.tile is not None and self.streamed < self.tile.s:
            return False
        if self.os:  # the tile's first result in row 0 must not be there before the release
            return self.tile is None or now + tile.s - 1 >= self.release
        return rows == tile.r

    def begin_tile(self, now: int) -> bool:
        tile = self.waiting
        if tile is None or not self.could_begin(tile, self.rows_loaded, now):
            return False
        step = self.steps_left[0]
        if not step.ready:
            return False
        if step.begun == 0:
            self.running.append(step)
        step.begun += 1
        last_result = tile.s + self.machine.rows + tile.c - 2 + (tile.r - 1 if self.os else 0)
        step.ends = max(step.ends, now + last_result)
        if step.begun == len(step.tiles):
            self.steps_left.popleft()
            self.plan_frees(step, tile, now)
        self.tile = tile
        self.streamed = self.rows_loaded = self.rows_possible = 0
        self.waiting = None
        if self.steps_left:
            self.waiting = self.steps_left[0].tiles[self.steps_left[0].begun]
        return True

    def plan_frees(self, step: Step, tile: ArrayTile, now: int) -> None:
        """The halves of the step whose last array tile begins now."""
        rows, cols = self.machine.rows, self.machine.cols
        streamed = now + tile.s + rows - 1
        other = now + cols - 1 + (tile.s if self.os else 0)
        free = (other, streamed) if self.machine.dataflow == "is" else (streamed, other)
        step.frees = [(free[load.operand], load) for load in step.needs if load.block is None]

    def pass_cycle(self, now: int) -> None:
        """An array takes in an element, a stationary row, or waits."""
        tile, waiting = self.tile, self.waiting
        if waiting is not None:
            ready = self.steps_left[0].ready
            if tile is None:
                self.stall += not ready
            elif self.could_begin(waiting, self.rows_possible, now):
                self.stall += 1
            if ready and self.rows_loaded < waiting.r:
                self.rows_loaded += 1
            if self.rows_possible < waiting.r:
                self.rows_possible += 1
        elif all(step.ends <= now for step in self.running):
            self.stall += 1
        if tile is not None and self.streamed < tile.s:
            self.streamed += 1
            self.busy += 1
            if self.streamed == tile.s:
                self.release = now + tile.r


# --- the op


@dataclass(frozen=True)
class Report:
    cycles: int
    busy: int
    fill_drain: int
    memory_stall: int
    dispatch: int
    read_bytes: list[list[int]]  # scratchpad, memory; of A, B, C, bias
    write_bytes: list[list[int]]
    folds: int
    mapping_efficiency: Fraction
    compute_utilization: Fraction


def simulate(machine: Machine, product: Product) -> Report:
    """The op, one cycle after the other."""
    mapping = mapping_of(machine, product)
    places = block_places(mapping, product)
    works = [
        Work(machine, product, mapping, share_of_core(core, machine.cores, places))
        for core in range(machine.cores)
    ]
    memory = Memory(machine)
    cores = [Core(machine, work, memory) for work in works]
    active = [core for core in cores if core.work.steps]
    for now in count(machine.dispatch):
        for core in active:
            core.act(now)
        active = [core for core in active if core.end is None]
        if not active:
            break
        memory.serve(now)
    return report_of(machine, product, works, cores, memory)


def report_of(
    machine: Machine, product: Product, works: list[Work], cores: list[Core], memory: Memory
) -> Report:
    critical = max(cores, key=lambda core: core.end or 0)  # of equals the first
    cycles = critical.end or 0
    pes = machine.rows * machine.cols
    folds = sum(work.folds for work in works)
    reads = [sum(work.scratchpad_reads[operand] for work in works) for operand in (A, B)]
    written = SUM_BYTES * sum(work.sums_written for work in works)
    macs = product.m * product.n * product.k * product.batch
    return Report(
        cycles=cycles,
        busy=critical.busy,
        fill_drain=cycles - critical.busy - critical.stall - machine.dispatch,
        memory_stall=critical.stall,
        dispatch=machine.dispatch,
        read_bytes=[[*reads, 0, 0], memory.bytes[0]],
        write_bytes=[[0, 0, written, 0], memory.bytes[1]],
        folds=folds,
        mapping_efficiency=Fraction(sum(work.used for work in works), pes * folds),
        compute_utilization=Fraction(
            macs, pes * machine.arrays * sum(work.occupancy for work in works)
        ),
    )
