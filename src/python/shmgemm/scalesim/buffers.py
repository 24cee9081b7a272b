"""What SCALE-Sim 3.0.0's double buffers ask of DRAM while nothing stalls.

Three of its classes in closed form: the read buffer of CALC runs (`read_buffer_estimate_bw.py`),
that of USER runs while an operand fits (`read_buffer.py`), the write buffer (`write_buffer.py`). A
word is one byte and half of each SRAM is active, as in `single_layer_sim.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .accesses import Stream

_CALC_READ_BANDWIDTH = 10  # words per cycle, fixed in SCALE-Sim
_SETS = 100  # a read buffer is divided into this many


@dataclass(frozen=True)
class Traffic:
    """DRAM accesses of one operand, and the cycles of the first and the last."""

    start: int
    stop: int
    words: int


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def calc_reads(stream: Stream, sram_words: int) -> Traffic:
    """Reads of a CALC run.

    A word that is not held is fetched. When the active half, 50 sets of ⌊size/100⌋ words, is full,
    it is emptied at once. What fits is fetched in the cycles before 0, else the first half before
    the first access and each later one until the cycle in which the one before it was full.
    """
    set_words = sram_words // _SETS
    capacity = _SETS // 2 * set_words
    refills, last_rank, held = _refills(stream, capacity)
    if refills == 0:
        fetched = _ceil(held, set_words) * set_words
        return Traffic(-_ceil(fetched, _CALC_READ_BANDWIDTH), -1, held)
    return Traffic(
        stream.first_cycle - _ceil(capacity, _CALC_READ_BANDWIDTH),
        stream.cycle_of(last_rank) + 1,
        refills * capacity + held,
    )


def _refills(stream: Stream, capacity: int) -> tuple[int, int, int]:
    """How often the buffer fills up, the rank of the access that fills it last, what is held after.

    The operand is read in parts, each several times over. Passes over a part that fits hit after
    the first; over one that does not, every access misses, because the buffer is emptied before the
    order comes round again. A part in which the buffer is emptied is held anew by its next pass.
    """
    passes = stream.passes
    if passes == 1:
        refills, held = divmod(stream.words, capacity)
        return refills, refills * capacity - 1, held
    parts = stream.col_folds - 1 if stream.by_column_fold else 0
    part = stream.column_words(0) // passes
    rank = parts * part * passes
    if parts == 0:
        refills, held, last_rank = 0, 0, -1
    elif part >= capacity:
        refills, held = divmod(rank, capacity)
        last_rank = refills * capacity - 1
    else:
        parts_each = _ceil(capacity, part) - 1
        refills = (parts - 1) // parts_each
        held = part * (parts - refills * parts_each)
        filling = capacity - parts_each * part
        last_rank = refills * parts_each * part * passes + filling - 1

    last_part = (stream.words - rank) // passes
    if last_part >= capacity:
        more, held = divmod(held + last_part * passes, capacity)
        return refills + more, stream.words - held - 1, held
    if held + last_part < capacity:
        return refills, last_rank, held + last_part
    misses = capacity - held
    return refills + 1, rank + misses - 1, min(last_part, last_part * passes - misses)


def user_reads(stream: Stream, sram_words: int, bandwidth: int) -> Traffic | None:
    """Reads of a USER run: before cycle 0, in lines of `bandwidth` words, padded to whole folds.

    None where the operand does not fit the active half: SCALE-Sim's stall model decides then.
    """
    active = sram_words - sram_words // 2
    set_words = _ceil(sram_words, _SETS)
    if _ceil(stream.words // stream.passes, set_words) > _ceil(active, set_words):
        return None
    lines = min(_ceil(active, bandwidth), _ceil(stream.padded_words, bandwidth))
    return Traffic(-lines, -1, lines * bandwidth)


def writes(
    stream: Stream, sram_words: int, bandwidth: int, max_per_cycle: int, end: int
) -> Traffic | None:
    """Writes of either run; `end` is the layer's last cycle, `bandwidth` the words of a line.

    Words gather in lines. One word more than half the SRAM sends half of it to DRAM, a line a
    cycle; the rest follows from `end` on. Where lines fill half the SRAM exactly, the last word
    opens a line that is sent only next time, as if it were full: SCALE-Sim then counts more writes
    than were made. None where the array writes faster than a line a cycle and more than half:
    stalls decide.
    """
    words, half = stream.words, sram_words // 2
    if words <= half:
        return Traffic(end, end + _ceil(words, bandwidth) - 1, words)
    if bandwidth < max_per_cycle:
        return None
    start = stream.cycle_of(half)
    if bandwidth == half:
        lines = 2 if 0 < words % (half + 1) < half else 1
        return Traffic(start, end + lines - 1, words)
    if half % bandwidth:
        drains, rest = divmod(words, half + 1)
        last = stream.cycle_of(drains * (half + 1) - 1) + half // bandwidth
        stop = max(last, end + _ceil(rest, bandwidth) - 1) if rest else last
        return Traffic(start, stop, words)
    drains = (words - 1) // half
    rest = words - drains * half - 1
    lines_left = 1 + _ceil(rest, bandwidth)
    first_line = 1 if drains == 1 else bandwidth
    sent = _sent_at_the_end(first_line, rest, bandwidth, half // bandwidth)
    last = stream.cycle_of(drains * half) + half // bandwidth - 1
    return Traffic(start, max(last, end + lines_left - 1), drains * half + sent)


def _sent_at_the_end(first_line: int, rest: int, bandwidth: int, lines_at_once: int) -> int:
    """Words counted for one line of `first_line` words and `rest` more in lines, sent in chunks.

    Only the last line of a chunk is counted as full as it is.
    """
    lines = _ceil(rest, bandwidth)
    last_line = rest - (lines - 1) * bandwidth if lines else first_line
    if lines < lines_at_once:
        return lines * bandwidth + last_line
    return lines_at_once * bandwidth + last_line
