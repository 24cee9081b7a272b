"""The memory-mapped command port through memHierarchy: GEMMs by registers, wrong accesses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plain_sst import EXAMPLES, has_memory_hierarchy, play, statistics

import shmgemm
from shmgemm import abi

pytestmark = pytest.mark.usefixtures("memory_hierarchy")

BASE = 0x10000
COMMAND, DOORBELL, READY, WAIT, NEXT, COMPLETION = 0x00, 0x80, 0x88, 0x90, 0x98, 0xC0
PEEK = f"read {BASE + READY} 8"
M, N, K = 16, 8, 24

CONFIGURATION = """
import sst
sst.Component("engine", "shmgemm.HostPort").addParam("host", "none")
device = sst.Component("device", "shmgemm.GemmDevice")
device.addParams({parameters})
registers = device.setSubComponent("mmio", "{interface}")
probe = sst.Component("probe", "probe.Probe")
probe.addParam("accesses", {accesses!r})
interface = probe.setSubComponent("interface", "memHierarchy.standardInterface")
sst.Link("l").connect((interface, "lowlink", "1ns"), (registers, "lowlink", "1ns"))
sst.setStatisticOutput("sst.statOutputCSV", {{"filepath": "found.csv"}})
sst.setStatisticLoadLevel(2)
sst.enableAllStatisticsForAllComponents()
"""


@pytest.fixture(scope="module")
def memory_hierarchy() -> None:
    if not has_memory_hierarchy():
        pytest.skip("needs sst-config of an SST with memHierarchy")


def gemm(**changes: int) -> abi.Command:
    command = abi.Command(id=7, op=abi.Op.GEMM, dtype_in=1, dtype_out=1, m=M, n=N, k=K, batch=1)
    command.lda, command.ldb, command.ldc = K, N, N
    command.a, command.b, command.c = 4096, 8192, 16384
    for name, value in changes.items():
        setattr(command, name, value)
    return command


def write(offset: int, data: bytes) -> str:
    return f"write {BASE + offset} {data.hex()}"


def read(offset: int, count: int) -> str:
    return f"read {BASE + offset} {count}"


def send(command: abi.Command) -> list[str]:
    """In pieces of 8 bytes, as a processor would."""
    data = bytes(command)
    pieces = [write(COMMAND + at, data[at : at + 8]) for at in range(0, len(data), 8)]
    return [*pieces, write(DOORBELL, bytes(8))]


def answers(
    folder: Path, library: Path, accesses: list[str], **parameters: object
) -> tuple[list[tuple[bool, bytes]], dict[str, int]]:
    """Of each access that is answered: whether it was well, and the bytes read."""
    config = folder / "system.py"
    config.write_text(
        CONFIGURATION.format(
            parameters={"mmio_base": BASE, "model": "simt", **parameters},
            interface="memHierarchy.standardInterface",
            accesses=" ".join(accesses),
        )
    )
    said = play(config, folder, libraries=(library,))
    found = re.findall(r"^answer (ok|failed) ?(\w*)$", said, re.MULTILINE)
    told = [(word == "ok", bytes.fromhex(data)) for word, data in found]
    assert len(told) == sum(not access.startswith("posted") for access in accesses), said
    return told, statistics(folder / "found.csv")["device"]


def test_the_example_takes_the_models_cycles(tmp_path: Path) -> None:
    play(EXAMPLES / "mmio.py", tmp_path)
    found = statistics(tmp_path / "mmio.csv")
    parameters = shmgemm.hardware.load({"clock": "1GHz"}).parameters
    lines = (EXAMPLES / "gemms.csv").read_text().splitlines()[1:]
    shapes = [[int(field) for field in line.split(",")[1:4]] for line in lines]
    cycles = sum(
        shmgemm._core.simulate_gemm(parameters, *shape, input_bytes=4, output_bytes=4)["cycles"]
        for shape in shapes
    )
    assert found["device"]["gemms"] == len(shapes)
    assert found["device"]["gemm_cycles"] == found["processor"]["cycles"] == cycles
    assert found["device"]["mmio_errors"] == found["processor"]["failures"] == 0


def test_a_command_by_hand(tmp_path: Path, elements: Path) -> None:
    accesses = [read(COMPLETION, 64), *send(gemm()), read(COMMAND, 128), read(WAIT, 8)]
    accesses += [read(COMPLETION, 64), read(COMPLETION + 12, 2), write(NEXT, bytes(1))]
    accesses += [read(READY, 4), read(DOORBELL, 8), read(COMPLETION, 64)]
    told, device = answers(tmp_path, elements, accesses)
    assert all(well for well, _ in told)
    data = [data for _, data in told]
    assert data[0] == bytes(64)
    completion = abi.Completion.from_buffer_copy(data[20])
    expected = shmgemm._core.simulate_gemm(
        shmgemm.hardware.load({"model": "simt"}).parameters, M, N, K, input_bytes=4, output_bytes=4
    )
    assert data[18] == bytes(gemm())
    assert int.from_bytes(data[19], "little") == 1
    assert (completion.id, completion.status) == (7, abi.Status.OK)
    assert completion.end_cycles - completion.start_cycles == expected["cycles"]
    assert data[21] == bytes(2)
    assert data[23:] == [bytes(4), (1).to_bytes(8, "little"), bytes(64)]
    assert device["gemms"] == 1 and device["mmio_errors"] == 0


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"id": 0}, abi.Status.BAD_ID),
        ({"m": 0}, abi.Status.BAD_SHAPE),
        ({"n": 0x80000000}, abi.Status.BAD_SHAPE),
        ({"lda": K - 1}, abi.Status.BAD_LEADING_DIMENSION),
        ({"dtype_in": 99}, abi.Status.BAD_DTYPE),
        ({"flags": 0x80000000}, abi.Status.BAD_FLAGS),
        ({"op": 200}, abi.Status.BAD_OP),
        ({"c": 4096}, abi.Status.OVERLAP),
        ({"a": 0}, abi.Status.OUT_OF_BOUNDS),
        ({"report": 1024}, abi.Status.BAD_REPORT),
        ({"release_cycles": 2**62}, abi.Status.BAD_ARGUMENT),
        ({"m": 0x7FFFFFFF, "n": 0x7FFFFFFF, "k": 4, "lda": 4, "ldb": 0x7FFFFFFF}, None),
    ],
)
def test_a_command_that_cannot_be_is_answered_with_what_is_wrong(
    tmp_path: Path, elements: Path, changes: dict[str, int], status: abi.Status | None
) -> None:
    accesses = [*send(gemm(**changes)), read(WAIT, 8), read(COMPLETION, 64), write(NEXT, bytes(8))]
    told, device = answers(tmp_path, elements, [*accesses, *send(gemm()), read(WAIT, 8)])
    assert all(well for well, _ in told)
    completion = abi.Completion.from_buffer_copy(told[18][1])
    assert completion.status != abi.Status.OK
    assert status is None or completion.status == status
    assert device["gemms"] == 1  # the next is served


WRONG = [
    read(0xA0, 8),  # no register is there
    read(0xFF, 2),  # half outside
    read(COMMAND + 120, 16),  # over a register's end
    read(COMPLETION, 65),
    read(NEXT, 8),  # written only
    read(DOORBELL + 1, 4),  # does not begin with the first byte
    read(DOORBELL, 16),
    read(WAIT, 8),  # nothing is under way
    write(READY, bytes(8)),  # read only
    write(WAIT, bytes(8)),
    write(COMPLETION, bytes(64)),
    write(NEXT, bytes(8)),  # nothing to drop
    write(DOORBELL, bytes(9)),
    write(DOORBELL + 4, bytes(4)),
    write(COMMAND + 127, bytes(2)),
    write(0x100 - 8, bytes(16)),
    f"lock {BASE + READY} 8",
    f"link {BASE + READY} 8",
    f"conditional {BASE + COMMAND} {bytes(8).hex()}",
]


def test_every_wrong_access_fails_and_changes_nothing(tmp_path: Path, elements: Path) -> None:
    data = bytes(range(128))
    accesses = [write(COMMAND, data), *WRONG, f"posted {BASE + READY} 00", read(COMMAND, 128), PEEK]
    told, device = answers(tmp_path, elements, accesses)
    assert [well for well, _ in told] == [True] + [False] * len(WRONG) + [True] * 2
    assert told[-2][1] == data
    assert told[-1][1] == bytes(8)
    assert device["mmio_errors"] == len(WRONG) + 1
    assert device["ops"] == device["rejects"] == 0


def test_more_commands_than_there_is_room_for(tmp_path: Path, elements: Path) -> None:
    ring = write(DOORBELL, bytes(8))
    accesses = [*send(gemm())[:-1], *[ring] * 257, read(WAIT, 8), write(NEXT, bytes(8)), ring, ring]
    told, device = answers(tmp_path, elements, accesses)
    assert [well for well, _ in told[16:]] == [True] * 256 + [False] + [True] * 3 + [False]
    assert device["mmio_errors"] == 2


@pytest.mark.parametrize(
    ("parameters", "interface", "message"),
    [
        (
            {"mmio_base": 100},
            "memHierarchy.standardInterface",
            'mmio_base = "100".*multiple of 256',
        ),
        ({"mmio_base": "x"}, "memHierarchy.standardInterface", 'mmio_base = "x"'),
        ({}, "memHierarchy.Cache", 'its slot "mmio" is no SST::Interfaces::StandardMem'),
    ],
)
def test_a_port_that_cannot_be_is_an_error_at_start(
    tmp_path: Path, elements: Path, parameters: dict[str, object], interface: str, message: str
) -> None:
    config = tmp_path / "system.py"
    config.write_text(CONFIGURATION.format(parameters=parameters, interface=interface, accesses=""))
    said = play(config, tmp_path, status=1, libraries=(elements,))
    assert re.search(message, said), said
