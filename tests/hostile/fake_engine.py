"""An engine that is not one: it speaks the control protocol as told and answers nonsense.

Run as `engine_path` through the script that `install()` writes, with the words that say what to do.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from shmgemm import abi

REGION_FD, CONTROL_FD = 3, 4


def install(folder: Path, *words: str) -> Path:
    """An executable that behaves as `words` say."""
    script = folder / ("engine-" + words[-1])
    path = [str(Path(__file__).parent), str(Path(abi.__file__).parents[1])]
    script.write_text(
        f"#!{sys.executable} -S\n"  # -S: no site-packages, so that it starts quickly
        f"import sys\nsys.path[:0] = {path!r}\n"
        f"import fake_engine\nfake_engine.main({list(words)!r})\n"
    )
    script.chmod(0o755)
    return script


class FakeEngine:
    def __init__(self) -> None:
        self.control = socket.socket(fileno=CONTROL_FD)
        self.memory = mmap.mmap(REGION_FD, 0)
        self.header = abi.Header.from_buffer(self.memory)
        self.pair = abi.QueuePair.from_buffer(self.memory, self.header.queue_pair_offset)
        self.published = 0

    def say(self, **changes: int) -> None:
        record = abi.Control(abi.ControlKind.READY, abi.ABI_MAJOR, abi.ABI_MINOR, os.getpid())
        for name, value in changes.items():
            setattr(record, name, value)
        self.control.send(bytes(record))

    def beat(self) -> None:
        while True:
            self.header.peers[abi.ENGINE_PEER].heartbeat += 1
            time.sleep(0.05)

    def commands(self) -> Iterator[abi.Command]:
        """Snapshots of what the client submits, until it hangs up."""
        taken = 0
        while True:
            slot = self.pair.commands[taken % abi.RING_SLOTS]
            if slot.seq == taken + 1:
                taken += 1
                yield abi.Command.from_buffer_copy(slot)
            else:
                time.sleep(0.0005)

    def answer_to(self, command: abi.Command) -> abi.Completion:
        return abi.Completion(id=command.id, generation=command.generation)

    def publish(self, completion: abi.Completion) -> None:
        slot = self.pair.completions[self.published % abi.RING_SLOTS]
        self.published += 1
        completion.seq = 0
        slot_bytes = memoryview(slot).cast("B")
        slot_bytes[:] = bytes(completion)
        slot.seq = self.published


def unknown_id(engine: FakeEngine, command: abi.Command) -> None:
    answer = engine.answer_to(command)
    answer.id += 12345 * abi.RING_SLOTS
    engine.publish(answer)


def twice(engine: FakeEngine, command: abi.Command) -> None:
    engine.publish(engine.answer_to(command))
    engine.publish(engine.answer_to(command))


def changed(**fields: int) -> object:
    def behave(engine: FakeEngine, command: abi.Command) -> None:
        answer = engine.answer_to(command)
        for name, value in fields.items():
            setattr(answer, name, value)
        engine.publish(answer)

    return behave


def noise(engine: FakeEngine, command: abi.Command) -> None:
    engine.publish(abi.Completion.from_buffer_copy(os.urandom(64)))


def dies(engine: FakeEngine, command: abi.Command) -> None:
    os._exit(7)


def garbles_the_region(engine: FakeEngine, command: abi.Command) -> None:
    """Random bytes over the header and every ring, then an answer nobody can read."""
    for at in range(0, abi.PAGE_BYTES + abi.QUEUE_PAIR_BYTES, 4096):
        engine.memory[at : at + 4096] = os.urandom(4096)
    time.sleep(0.2)
    os._exit(9)


def flips(engine: FakeEngine, command: abi.Command) -> None:
    record = bytearray(bytes(engine.answer_to(command)))
    bit = random.randrange(60 * 8)  # not in seq: the client would never look
    record[bit // 8] ^= 1 << bit % 8
    engine.publish(abi.Completion.from_buffer_copy(record))


def reports_noise(engine: FakeEngine, command: abi.Command) -> None:
    """A GEMM is answered with a report whose head is right and whose timeline is noise."""
    answer = engine.answer_to(command)
    if command.report:
        count = (abi.REPORT_BYTES - ctypes.sizeof(abi.GemmReport)) // 32
        report = abi.GemmReport(peak_macs_per_cycle=1, timeline_count=count)
        answer.report_bytes = ctypes.sizeof(report) + 32 * count
        report.head = abi.Report(abi.ReportKind.GEMM, answer.report_bytes)
        at = command.report * abi.BLOCK_ALIGN
        engine.memory[at : at + answer.report_bytes] = bytes(report) + os.urandom(32 * count)
    engine.publish(answer)


BEHAVIOURS = {
    "unknown_id": unknown_id,
    "twice": twice,
    "id_0": changed(id=0),
    "generation": changed(generation=77),
    "status": changed(status=999),
    "backwards": changed(start_cycles=10, end_cycles=9),
    "report": changed(report_bytes=abi.REPORT_BYTES + 1),
    "refuses": changed(status=int(abi.Status.BAD_SHAPE)),
    "noise": noise,
    "reports_noise": reports_noise,
    "dies": dies,
    "garbles": garbles_the_region,
    "flips": flips,
}


def only_the_first(words: list[str], real_engine: str) -> None:
    """Behaves the first time it is started; from then on the real engine takes its place."""
    marker = Path(sys.argv[0] + ".ran")
    if marker.exists():
        os.execv(real_engine, [real_engine, *sys.argv[1:]])
    marker.touch()
    main(words)


def main(words: list[str]) -> None:
    engine = FakeEngine()
    match words:
        case ["control", name, value]:
            engine.say(**{name: int(value)})
            time.sleep(30)
        case ["control", "short"]:
            engine.control.send(b"hello")
            time.sleep(30)
        case ["first", real_engine, *rest]:
            only_the_first(rest, real_engine)
        case ["silent"]:
            time.sleep(60)
        case [behaviour]:
            threading.Thread(target=engine.beat, daemon=True).start()
            engine.say()
            for command in engine.commands():
                BEHAVIOURS[behaviour](engine, command)  # type: ignore[operator]
