"""The QEMU device: records through its queue, engines that come and go, both sides lying.

No guest runs: tests/guest/qtest.py is the driver and link.py the engine, so that either can break
any rule.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import link
import pytest
import qtest
from link import Engine
from qtest import CONFIG_INTERRUPT, NEEDS_RESET, RAM, USED_INTERRUPT, Driver, Machine, Part

from shmgemm import abi

Start = Callable[..., Machine]


def offer_record(driver: Driver, record: bytes, answer_bytes: int) -> tuple[int, int]:
    """Makes a well-formed chain available: its head, and where its answer will be."""
    answer = driver.buffer(answer_bytes)
    parts = [
        Part(driver.buffer(len(record), record), len(record)),
        Part(answer, answer_bytes, True),
    ]
    head = driver.describe(parts)
    driver.offer(head)
    return head, answer


def offer_command(driver: Driver, number: int, **fields: int) -> tuple[int, int]:
    return offer_record(driver, link.command(number, **fields), link.COMPLETION_BYTES)


def offer_request(driver: Driver, number: int) -> tuple[int, int]:
    return offer_record(driver, link.request(number, user=number + 1), link.RESPONSE_BYTES)


def works(driver: Driver, engine: Engine, number: int = 99991) -> None:
    """The device carries a command and its completion, whatever it went through before."""
    driver.set_up()
    head, answer = offer_command(driver, number)
    driver.kick()
    while number not in [struct.unpack_from("<Q", one)[0] for one in engine.commands(1)]:
        continue
    engine.complete([number])
    assert driver.wait_used(1) == [(head, 64)]
    assert driver.machine.read(answer, 64) == link.completion(number)


@pytest.fixture
def connected(machine: Start, engine: Engine) -> Driver:
    driver = Driver(machine())
    engine.accept()
    qtest.wait_for(lambda: driver.config()["connected"], "the device is connected")
    driver.interrupts()
    return driver


# --- how it presents itself ---------------------------------------------------------------------


def ask_qemu(plugin: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [qtest.QEMU, "-M", "virt", "-display", "none", *words],
        env={**os.environ, "LD_PRELOAD": str(plugin)},
        capture_output=True,
        text=True,
        timeout=qtest.TIMEOUT_S,
        check=False,
    )


def test_both_devices_and_their_trace_events_are_known(plugin: Path) -> None:
    devices = ask_qemu(plugin, "-device", "help").stdout
    assert 'name "virtio-sst-device"' in devices and 'name "virtio-sst-pci"' in devices
    assert "virtio_sst_bad_chain" in ask_qemu(plugin, "-trace", "help").stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "socket=PATH is missing"),
        (",socket=/tmp/" + 120 * "x", "has 125 characters"),
        (",sockett=/tmp/x", "sockett"),
    ],
)
def test_bad_properties_are_named(plugin: Path, options: str, said: str) -> None:
    done = ask_qemu(plugin, "-device", "virtio-sst-pci" + options)
    assert done.returncode == 1 and said in done.stderr


def test_pci_identity(machine: Start, tmp_path: Path) -> None:
    running = machine(device="virtio-sst-pci,index=0,addr=3")
    ecam = 0x3000_0000 + (3 << 15)
    assert running.read(ecam, 4) == struct.pack("<HH", 0x1AF4, 0x107F)
    assert running.read(ecam + 8, 1) == b"\1"


def test_migration_is_refused_with_the_reason(machine: Start, tmp_path: Path) -> None:
    path = tmp_path / "qmp.sock"
    machine("-qmp", f"unix:{path},server=on,wait=off")
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(qtest.TIMEOUT_S)
        monitor.connect(str(path))
        lines = monitor.makefile("rw")
        lines.readline()
        for words in (
            {"execute": "qmp_capabilities"},
            {"execute": "migrate", "arguments": {"uri": "exec:cat >/dev/null"}},
        ):
            lines.write(json.dumps(words) + "\n")
            lines.flush()
            answer = json.loads(lines.readline())
    assert "virtio-sst cannot migrate" in answer["error"]["desc"]


# --- the link -----------------------------------------------------------------------------------


def test_hello_and_configuration_space(machine: Start, engine: Engine) -> None:
    driver = Driver(machine(device="virtio-sst-device,index=1"))
    assert driver.config()["connected"] == 0
    said = engine.accept(generation=9, clock_hz=5)
    assert said == {
        "magic": link.MAGIC,
        "abi_major": 1,
        "abi_minor": abi.ABI_MINOR,
        "role": link.QEMU,
        "index": 1,
        "devices": 0,
        "generation": 0,
    }
    qtest.wait_for(lambda: driver.config()["connected"], "the device is connected")
    seen = driver.config()
    expected = {"index": 1, "devices": 2, "generation": 9, "clock_hz": 5, "region_bytes": 1 << 28}
    expected |= {"abi_major": 1, "abi_minor": abi.ABI_MINOR, "region_id0": 11, "region_id1": 12}
    expected["reserved"] = 0
    assert {key: seen[key] for key in expected} == expected
    assert driver.interrupts() & CONFIG_INTERRUPT


def test_engine_may_start_last_and_start_again(
    machine: Start, engine: Engine, tmp_path: Path
) -> None:
    engine.close()
    driver = Driver(machine())
    for number in (1, 2, 3):
        late = Engine(tmp_path / "engine.sock")
        late.accept(generation=number)
        qtest.wait_for(lambda n=number: driver.config()["generation"] == n, "the new engine")
        works(driver, late)
        late.close()
        qtest.wait_for(lambda: not driver.config()["connected"], "it is gone")


def test_without_an_engine_everything_ends_at_once(machine: Start, engine: Engine) -> None:
    engine.close()
    driver = Driver(machine())
    one, completion = offer_command(driver, 5, device=1)
    two, response = offer_request(driver, 6)
    driver.kick()
    assert sorted(driver.wait_used(2)) == sorted([(one, 64), (two, 4112)])
    expected = struct.pack("<QIHH", 5, 7, link.NO_DEVICE, 1)
    assert driver.machine.read(completion, 64) == expected.ljust(64, b"\0")
    assert driver.machine.read(response, 4112) == link.response(6, link.NO_DEVICE, user=7)
    assert driver.config()["no_device"] == 2
    assert driver.interrupts() & USED_INTERRUPT


def test_hang_up_ends_what_is_pending(connected: Driver, engine: Engine) -> None:
    chains = [offer_command(connected, number) for number in range(1, 6)]
    chains.append(offer_request(connected, 1))
    connected.kick()
    engine.commands(5)
    engine.request()
    engine.hang_up()
    assert {head for head, _ in connected.wait_used(6)} == {head for head, _ in chains}
    for _, answer in chains[:5]:
        assert struct.unpack("<H", connected.machine.read(answer + 12, 2)) == (link.NO_DEVICE,)
    assert connected.machine.readl(chains[5][1]) == link.NO_DEVICE
    assert connected.config()["connected"] == 0
    assert connected.interrupts() == USED_INTERRUPT | CONFIG_INTERRUPT
    engine.accept()
    qtest.wait_for(lambda: connected.config()["connected"], "the device is connected again")
    works(connected, engine)


# --- records ------------------------------------------------------------------------------------


def test_answers_come_back_in_any_order(connected: Driver, engine: Engine) -> None:
    numbers = list(range(1, 101))
    chains = {number: offer_command(connected, number, op=number % 10) for number in numbers}
    connected.kick()
    assert engine.commands(100) == [link.command(number, op=number % 10) for number in numbers]
    random.Random(1).shuffle(numbers)
    for at in range(0, 100, 7):
        engine.complete(numbers[at : at + 7])
    assert connected.wait_used(100) == [(chains[number][0], 64) for number in numbers]
    for number in numbers:
        assert connected.machine.read(chains[number][1], 64) == link.completion(number)


def test_requests_and_commands_have_ids_of_their_own(connected: Driver, engine: Engine) -> None:
    command, completion = offer_command(connected, 1)
    request, response = offer_request(connected, 1)
    connected.kick()
    assert engine.commands(1) == [link.command(1)]
    assert engine.request() == link.request(1, user=2)
    payload = bytes(range(255)) * 16
    engine.send(link.RESPONSE, link.response(1, user=2, payload=payload))
    assert connected.wait_used(1) == [(request, 4112)]
    assert connected.machine.read(response, 4112) == link.response(1, user=2, payload=payload)
    engine.complete([1])
    assert connected.wait_used(1) == [(command, 64)]
    assert connected.machine.read(completion, 64) == link.completion(1)


def test_a_record_may_lie_in_many_pieces(connected: Driver, engine: Engine) -> None:
    record = link.request(3, payload=os.urandom(4080))
    cuts = [0, 1, 8, 13, 1000, 1001, 4103, 4104]
    parts = [
        Part(connected.buffer(end - begin, record[begin:end]), end - begin)
        for begin, end in itertools.pairwise(cuts)
    ]
    answers = [(connected.buffer(size), size) for size in (3, 4000, 109)]
    head = connected.describe([*parts, *(Part(*answer, writable=True) for answer in answers)])
    connected.offer(head)
    connected.kick()
    assert engine.request() == record
    answer = link.response(3, payload=os.urandom(4080))
    engine.send(link.RESPONSE, answer)
    assert connected.wait_used(1) == [(head, 4112)]
    assert b"".join(connected.machine.read(*piece) for piece in answers) == answer


def test_a_full_queue_and_counters_that_add_up(connected: Driver, engine: Engine) -> None:
    rounds, depth = 3, 128  # chains of two descriptors: the queue's 256
    for turn in range(rounds):
        numbers = [turn * depth + at + 1 for at in range(depth)]
        heads = [offer_command(connected, number)[0] for number in numbers]
        connected.kick()
        assert len(engine.commands(depth)) == depth
        engine.complete(numbers)
        assert connected.wait_used(depth) == [(head, 64) for head in heads]
        connected._free = list(range(256))
    counted = connected.config()
    assert counted["commands"] == counted["completed"] == rounds * depth
    assert counted["requests"] == counted["no_device"] == counted["bad_chains"] == 0
    assert counted["bytes_to_engine"] == engine.received
    assert counted["bytes_from_engine"] == engine.sent
    records = rounds * depth * link.COMMAND_BYTES
    assert 72 + records + 8 <= engine.received <= 72 + records + 8 * rounds * depth
    assert engine.sent == 72 + rounds * (8 + depth * link.COMPLETION_BYTES)
    assert counted["sojourn_ns"] > 0


def test_frames_may_come_in_any_pieces(connected: Driver, engine: Engine) -> None:
    numbers = list(range(1, 31))
    heads = [offer_command(connected, number)[0] for number in numbers]
    connected.kick()
    engine.commands(30)
    stream = b"".join(link.frame(link.COMPLETIONS, link.completion(n)) for n in numbers)
    random_sizes = random.Random(2)
    while stream:
        size = random_sizes.choice([1, 7, 8, 63, 64, 65, 200])
        engine.send_raw(stream[:size])
        connected.machine.readl(connected.base)  # a turn of QEMU's main loop
        stream = stream[size:]
    assert connected.wait_used(30) == [(head, 64) for head in heads]


def test_an_engine_that_does_not_read_blocks_nothing(connected: Driver, engine: Engine) -> None:
    assert engine.connection is not None
    engine.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    heads = [offer_request(connected, number)[0] for number in range(1, 129)]
    connected.kick()
    qtest.wait_for(lambda: connected.config()["requests"] == 128, "all are taken")
    assert connected.take_used() == []
    for number in range(1, 129):
        assert engine.request() == link.request(number, user=number + 1)
        engine.send(link.RESPONSE, link.response(number))
    assert connected.wait_used(128) == [(head, 4112) for head in heads]


def test_reset_detaches_and_late_answers_are_dropped(connected: Driver, engine: Engine) -> None:
    _, stale = offer_command(connected, 1)
    offer_request(connected, 1)
    connected.kick()
    engine.commands(1)
    engine.request()
    old, engine.connection = engine.connection, None
    assert old is not None
    connected.set_up()
    engine.accept()
    old.close()
    qtest.wait_for(lambda: connected.config()["connected"], "the device is connected again")
    assert connected.machine.read(stale, 64) == bytes(64)
    head, answer = offer_command(connected, 1, op=3)
    connected.kick()
    assert engine.commands(1) == [link.command(1, op=3)]
    engine.complete([1])
    assert connected.wait_used(1) == [(head, 64)]
    assert connected.machine.read(answer, 64) == link.completion(1)


def test_reset_with_nothing_pending_keeps_the_connection(connected: Driver, engine: Engine) -> None:
    for number in (1, 2, 3):
        works(connected, engine, number)
    assert connected.config()["connected"] == 1


# --- guests that lie ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("readable", "writable"),
    [
        *[(127, 64), (129, 64), (128, 63), (128, 65), (128, 0), (0, 64), (1, 1), (64, 128)],
        *[(4104, 64), (128, 4112), (4103, 4112), (4105, 4112), (4104, 4111), (4104, 0), (0, 4112)],
        *[(4112, 4104), (65536, 65536)],
    ],
)
def test_chains_of_no_known_size(
    connected: Driver, engine: Engine, readable: int, writable: int
) -> None:
    parts = [Part(connected.buffer(readable), readable)] if readable else []
    if writable:
        parts.append(Part(connected.buffer(writable), writable, True))
    head = connected.describe(parts)
    connected.offer(head)
    connected.kick()
    assert connected.wait_used(1) == [(head, 0)]
    assert connected.config()["bad_chains"] == 1
    works(connected, engine)


def test_an_id_that_is_pending_is_refused(connected: Driver, engine: Engine) -> None:
    first, _ = offer_command(connected, 4)
    again, _ = offer_command(connected, 4)
    one, _ = offer_request(connected, 4)
    two, _ = offer_request(connected, 4)
    connected.kick()
    assert connected.wait_used(2) == [(again, 0), (two, 0)]
    engine.commands(1)
    engine.request()
    engine.complete([4])
    engine.send(link.RESPONSE, link.response(4))
    assert connected.wait_used(2) == [(first, 64), (one, 4112)]
    assert connected.config()["bad_chains"] == 2


BAD_DESCRIPTORS = {
    "a loop": [(0, RAM, 128, qtest.NEXT, 0)],
    "a long loop": [(0, RAM, 64, qtest.NEXT, 1), (1, RAM, 64, qtest.NEXT, 0)],
    "next out of range": [(0, RAM, 128, qtest.NEXT, 60000)],
    "no memory there": [(0, 0xFFFF_0000_0000, 128, qtest.NEXT, 1), (1, RAM, 64, qtest.WRITE, 0)],
    "address wraps": [(0, (1 << 64) - 8, 128, qtest.NEXT, 1), (1, RAM, 64, qtest.WRITE, 0)],
    "beyond memory": [(0, RAM + qtest.RAM_BYTES - 64, 128, 0, 0)],
    "4 GiB": [(0, RAM, 0xFFFF_FFFF, qtest.NEXT, 1), (1, RAM, 0xFFFF_FFFF, qtest.WRITE, 0)],
    "empty": [(0, RAM, 0, 0, 0)],
    "writable before readable": [(0, RAM, 64, qtest.WRITE | qtest.NEXT, 1), (1, RAM, 128, 0, 0)],
    "device registers": [(0, 0x1000_8000, 128, qtest.NEXT, 1), (1, 0x1000_8000, 64, 2, 0)],
    "its own registers": [(0, RAM, 128, qtest.NEXT, 1), (1, 0x1000_8050, 64, qtest.WRITE, 0)],
    "indirect of odd size": [(0, RAM, 17, qtest.INDIRECT, 0)],
    "indirect in a chain": [(0, RAM, 16, qtest.INDIRECT | qtest.NEXT, 1), (1, RAM, 16, 0, 0)],
    "indirect nowhere": [(0, 0xFFFF_0000_0000, 4096, qtest.INDIRECT, 0)],
    "queue as buffer": [(0, RAM, 128, qtest.NEXT, 1), (1, RAM, 64, qtest.WRITE, 0)],
}


@pytest.mark.parametrize("name", BAD_DESCRIPTORS)
def test_bad_descriptors(connected: Driver, engine: Engine, name: str) -> None:
    connected.features |= qtest.INDIRECT_DESC
    connected.set_up()
    for descriptor in BAD_DESCRIPTORS[name]:
        connected.raw_descriptor(*descriptor)
    connected.offer(0)
    connected.kick()
    qtest.wait_for(lambda: connected.machine.readl(connected.base), "QEMU answers")
    connected.reset()
    survives(connected, engine)


def survives(driver: Driver, engine: Engine) -> None:
    """Device and engine work, over a new connection where the reset found something pending."""
    driver.set_up()
    wanted = 77777
    for _ in range(20):
        head, answer = offer_command(driver, wanted)
        driver.kick()
        if reaches(engine, wanted):
            engine.complete([wanted])
        if (head, 64) in driver.wait_used(1) and driver.machine.read(answer + 12, 2) == b"\0\0":
            return
        engine.accept()
        qtest.wait_for(lambda: driver.config()["connected"], "the device is connected")
    raise AssertionError("the device never recovered")


def reaches(engine: Engine, wanted: int) -> bool:
    """Reads frames up to the command that is meant; False where the device hung up instead."""
    try:
        while True:
            kind, content = engine.receive()
            numbers = [
                struct.unpack_from("<Q", content, at)[0] for at in range(0, len(content), 128)
            ]
            if kind == link.COMMANDS and wanted in numbers:
                return True
    except (AssertionError, ConnectionResetError):
        return False


def test_available_index_beyond_the_queue(connected: Driver, engine: Engine) -> None:
    connected.machine.write(connected.available + 2, struct.pack("<H", 40000))
    connected.kick()
    qtest.wait_for(lambda: connected.status & NEEDS_RESET, "the device asks for a reset")
    survives(connected, engine)


def test_a_queue_with_more_room_than_the_link(machine: Start, engine: Engine) -> None:
    driver = Driver(machine(), size=1024)
    engine.accept()
    qtest.wait_for(lambda: driver.config()["connected"], "the device is connected")
    heads = [offer_command(driver, number)[0] for number in range(1, 513)]
    driver.kick()
    engine.commands(256)
    assert driver.config()["commands"] == 256
    engine.complete([1])
    assert engine.commands(1) == [link.command(257)]
    engine.complete(list(range(2, 258)))
    engine.commands(255)
    engine.complete(list(range(258, 513)))
    assert driver.wait_used(512) == [(head, 64) for head in heads]


def test_one_head_offered_over_and_over(connected: Driver, engine: Engine) -> None:
    """More chains than the queue has room for: never more than 256 records in flight."""
    connected.raw_descriptor(0, RAM + 0x8000, 128, qtest.NEXT, 1)
    connected.raw_descriptor(1, RAM + 0x9000, 64, qtest.WRITE, 0)
    for number in range(1, 600):
        connected.machine.write(RAM + 0x8000, link.command(number))
        connected.offer(0)
        connected.kick()
        connected.config()
    engine.commands(256)
    assert connected.config()["commands"] == 256
    engine.complete(list(range(1, 257)))
    assert engine.commands(1) == [link.command(599)]
    qtest.wait_for(lambda: connected.config()["bad_chains"] == 342, "its copies are refused")
    survives(connected, engine)


@pytest.mark.parametrize("seed", range(6))
def test_random_queues(connected: Driver, engine: Engine, seed: int) -> None:
    dice = random.Random(seed)
    sizes = [0, 1, 16, 64, 64, 128, 128, 4104, 4112, 1 << 20, 0xFFFF_FFFF]
    places = [RAM, RAM + 0x5000, RAM + 0x10000, 0, 0x1000_8000, 0xFFFF_FFFF_FFFF_FFF0]
    connected.features |= qtest.INDIRECT_DESC
    for _ in range(25):
        connected.set_up()
        for index in range(16):
            flags = dice.choice([0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7, 0xFFFF])
            next_index = dice.choice([*range(16), 255, 256, 65535])
            place = dice.choice(places) + dice.randrange(64)
            connected.raw_descriptor(index, place, dice.choice(sizes), flags, next_index)
        for _ in range(4):
            connected.offer(*(dice.choice([*range(16), 300]) for _ in range(dice.randrange(1, 9))))
            connected.kick()
        connected.machine.readl(connected.base)
    connected.reset()
    engine.hang_up()
    engine.accept()
    qtest.wait_for(lambda: connected.config()["connected"], "the device is connected")
    survives(connected, engine)


# --- engines that lie ---------------------------------------------------------------------------

BAD_HELLOS = {
    "no shmgemm engine": {"magic": 1},
    "no shmgemm engine ": {"role": link.QEMU},
    f"ABI 2.5, this device 1.{abi.ABI_MINOR}": {"abi_major": 2, "abi_minor": 5},
    "index=0, but the engine has 0 device": {"devices": 0},
}


@pytest.mark.parametrize("said", BAD_HELLOS)
def test_bad_hello_is_told_to_both_sides(machine: Start, engine: Engine, said: str) -> None:
    driver = Driver(machine())
    for _ in range(3):
        engine.accept(**BAD_HELLOS[said])
        engine.hung_up_on()
        kind, size = link.HEAD.unpack_from(engine.last_words)
        assert kind == link.FAILED and len(engine.last_words) == link.HEAD.size + size
        assert said.strip() in engine.last_words.decode(errors="replace")
    assert driver.config()["connected"] == 0
    qtest.wait_for(lambda: said.strip() in driver.machine.log(), "a warning")
    assert driver.machine.log().count(said.strip()) == 1
    engine.accept()
    works(driver, engine)


BAD_FRAMES = {
    "commands": link.frame(link.COMMANDS, link.command(1)),
    "a second hello": link.frame(link.HELLO, link.hello()),
    "no completion": link.frame(link.COMPLETIONS, b""),
    "half a completion": link.frame(link.COMPLETIONS, bytes(96)),
    "a short response": link.frame(link.RESPONSE, bytes(4111)),
    "a long response": link.frame(link.RESPONSE, bytes(4113)),
    "an unknown kind": link.frame(77, bytes(8)),
    "a huge frame": link.HEAD.pack(link.COMPLETIONS, 0xFFFF_FFFF),
    "noise": random.Random(3).randbytes(100_000),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frames_end_the_link_and_what_is_pending(
    connected: Driver, engine: Engine, name: str
) -> None:
    head, answer = offer_command(connected, 1)
    connected.kick()
    engine.commands(1)
    try:
        engine.send_raw(BAD_FRAMES[name])
    except (BrokenPipeError, ConnectionResetError):
        assert name == "noise"
    engine.hung_up_on()
    assert connected.wait_used(1) == [(head, 64)]
    assert struct.unpack("<H", connected.machine.read(answer + 12, 2)) == (link.NO_DEVICE,)
    engine.accept()
    qtest.wait_for(lambda: connected.config()["connected"], "the device is connected again")
    works(connected, engine)


def test_answers_to_nothing_are_dropped(connected: Driver, engine: Engine) -> None:
    engine.complete([1, 2, 3])
    engine.send(link.RESPONSE, link.response(9))
    head, _ = offer_command(connected, 1)
    connected.kick()
    engine.commands(1)
    engine.complete([1, 1, 1])
    assert connected.wait_used(1) == [(head, 64)]
    works(connected, engine)
    assert connected.config()["completed"] == 2


def test_what_the_engine_says_is_repeated_once(machine: Start, engine: Engine) -> None:
    driver = Driver(machine())
    for _ in range(2):
        engine.accept()
        engine.send(link.FAILED, b"the region is gone \xff")
        engine.hung_up_on()
    qtest.wait_for(lambda: "the engine says: the region is gone" in driver.machine.log(), "it")


def test_trace_shows_a_command_on_its_way(machine: Start, engine: Engine) -> None:
    running = machine("-trace", "virtio_sst_*")
    driver = Driver(running)
    engine.accept()
    qtest.wait_for(lambda: driver.config()["connected"], "the device is connected")
    works(driver, engine, 4242)
    assert re.search(r"virtio_sst_command .*sst0: command 4242 op 0", running.log())
    assert re.search(r"virtio_sst_answer .*4242 ends with status 0 after \d+ ns", running.log())
