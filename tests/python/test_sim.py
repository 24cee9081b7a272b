"""`shmgemm sim`: SCALE-Sim's own figures, closed forms against plain replays, malformed files."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmgemm import _core, cli, plugins
from shmgemm.scalesim import accesses, buffers, config, reports, topology
from shmgemm.scalesim.accesses import Stream
from shmgemm.scalesim.topology import Layer

CFG = """[general]
run_name = demo
[architecture_presets]
ArrayHeight = 4
ArrayWidth = 4
IfmapSramSzkB = 1
FilterSramSzkB = 1
OfmapSramSzkB = 1
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = 10
Dataflow = ws
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""
CSV = "Layer, M, N, K,\na, 4, 4, 4,\nb, 5, 7, 9,\nc, 33,40,65,\n"


def sim(folder: Path, cfg: str = CFG, gemms: str = CSV, *words: str) -> int:
    (folder / "arch.cfg").write_text(cfg, encoding="utf-8")
    (folder / "gemm.csv").write_text(gemms, encoding="utf-8")
    files = ["-c", str(folder / "arch.cfg"), "-t", str(folder / "gemm.csv")]
    return cli.main(["sim", *files, "-p", str(folder / "out"), *words])


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "out" / "demo" / name).open(newline="") as file:
        return list(csv.DictReader(file, skipinitialspace=True))


# PEERS's table, measured with SCALE-Sim 3.0.0: rows, cols, (M, N, K), cycles for os, ws, is.
TABLE = [
    (4, 4, (4, 4, 4), (9, 13, 13)),
    (4, 4, (5, 7, 9), (59, 89, 101)),
    (8, 4, (33, 17, 65), (1874, 2294, 2834)),
    (16, 16, (33, 17, 65), (569, 789, 944)),
    (16, 16, (1, 64, 64), (375, 751, 439)),
    (16, 16, (64, 64, 64), (1503, 1759, 1759)),
    (32, 32, (256, 256, 256), (20351, 22399, None)),
]


@pytest.mark.parametrize(("rows", "cols", "shape", "cycles"), TABLE)
def test_measured_cycles(
    tmp_path: Path, rows: int, cols: int, shape: tuple[int, int, int], cycles: tuple[Any, ...]
) -> None:
    for dataflow, expected in zip(("os", "ws", "is"), cycles, strict=True):
        cfg = CFG.replace("Dataflow = ws", f"Dataflow = {dataflow}")
        cfg = cfg.replace("Height = 4", f"Height = {rows}").replace("Width = 4", f"Width = {cols}")
        m, n, k = shape
        assert sim(tmp_path, cfg, f"name,M,N,K\nonly,{m},{n},{k}\n") == 0
        (row,) = read(tmp_path, "COMPUTE_REPORT.csv")
        assert expected is None or row["Total Cycles"] == str(expected)


# The last layer of CSV, 33x40x65, as SCALE-Sim 3.0.0 reports it. It does not fit 1 kB SRAMs.
MEASURED = {
    "os": (
        "6513, 6389, 0, 83.9333228987322, 91.66666666666666, 83.92018779342727",
        "3.357332915949288, 3.662544999217405, 0.31929879480356865, 3.4243295019157087,"
        " 0.8117326057298773, 0.33207831325301207",
        "1.0, 6384.0, 21450, 1.0, 6387.0, 23400, 64.0, 6389.0, 2040, -50.0, 6213.0, 21450, -50.0,"
        " 5813.0, 4760, 2480.0, 6463.0, 1323",
    ),
    "ws": (
        "7465, 7309, 0, 73.3684498563415, 95.58823529411765, 68.57416879795404",
        "2.93473799425366, 0.3557258174852921, 3.0701874401422904, 2.989130434782609,"
        " 0.3703176185728529, 3.095586206896552",
        "5.0, 7304.0, 21450, 1.0, 7271.0, 2600, 7.0, 7309.0, 22440, -46.0, 7129.0, 21450, -50.0,"
        " 6970.0, 2600, 166.0, 7415.0, 22443",
    ),
    "is": (
        "7805, 7649, 0, 70.1072035560204, 87.62254901960785, 66.13022567517575",
        "0.28042881422408156, 3.059223427899072, 2.9337168257288533, 0.3273809523809524,"
        " 3.106332138590203, 2.956916996047431",
        "1.0, 7604.0, 2145, 5.0, 7644.0, 23400, 7.0, 7646.0, 22440, -50.0, 6501.0, 2145, -46.0,"
        " 7486.0, 23400, 166.0, 7755.0, 22443",
    ),
    # 16 kB each, InterfaceBandwidth USER, 10 words a cycle: reads fit, writes are drained twice.
    "user": (
        "8174, 7309, 0, 73.3684498563415, 95.58823529411765, 68.57416879795404",
        "2.93473799425366, 0.3557258174852921, 3.0701874401422904, 10.0, 10.0, 4.2832601641534644",
        "5.0, 7304.0, 21450, 1.0, 7271.0, 2600, 7.0, 7309.0, 22440, -225.0, -1.0, 2250, -260.0,"
        " -1.0, 2600, 2676.0, 7914.0, 22440",
    ),
}


@pytest.mark.parametrize("case", MEASURED)
def test_measured_reports(tmp_path: Path, case: str) -> None:
    if case == "user":
        cfg = CFG.replace("SzkB = 1", "SzkB = 16").replace("CALC", "USER")
    else:
        cfg = CFG.replace("Dataflow = ws", f"Dataflow = {case}")
    assert sim(tmp_path, cfg) == 0
    for name, expected in zip(reports.COLUMNS, MEASURED[case], strict=True):
        row = read(tmp_path, name)[2]
        assert [key for key in row if key] == list(reports.COLUMNS[name])
        assert row["LayerID"] == "2"
        values = [row[column] for column in reports.COLUMNS[name][1:]]
        for given_text, wanted in zip(values, expected.split(", "), strict=True):
            assert float(given_text) == pytest.approx(float(wanted), rel=1e-12, abs=0)
            assert ("." in given_text) == ("." in wanted)


def test_files_are_formatted_as_theirs(tmp_path: Path) -> None:
    assert sim(tmp_path) == 0
    lines = (tmp_path / "out" / "demo" / "COMPUTE_REPORT.csv").read_text().splitlines()
    assert lines[:2] == [
        "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %,"
        " Mapping Efficiency %, Compute Util %,",
        "0, 18, 13, 0, 30.76923076923077, 100.0, 23.52941176470588,",
    ]


# Replays, written from what SCALE-Sim's buffers do with one access after the other.


def matrix_order(dataflow: str, rows: int, cols: int, shape: Any) -> Iterator[Any]:
    """Every SRAM access of every fold as (cycle, operand, address), by triple loop."""
    m, n, k = shape
    across, down, streamed = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    length = (rows if dataflow == "os" else 2 * rows) + cols + streamed - 2
    begin = 0
    for column in range(0, down, cols):
        for row in range(0, across, rows):
            lanes = range(row, min(row + rows, across))
            files = range(column, min(column + cols, down))
            for time in range(streamed):
                if dataflow == "os":
                    yield from ((begin + time + r - row, "A", (r, time)) for r in lanes)
                    yield from ((begin + time + c - column, "B", (time, c)) for c in files)
                else:
                    moving = "A" if dataflow == "ws" else "B"
                    for lane in lanes:
                        address = (time, lane) if dataflow == "ws" else (lane, time)
                        yield begin + rows + time + lane - row, moving, address
                    for c in files:
                        address = (time, c) if dataflow == "ws" else (c, time)
                        yield begin + 2 * rows - 1 + time + c - column, "C", address
            for r in lanes:
                for c in files:
                    if dataflow == "os":
                        cycle = begin + streamed - 1 + (rows - 1 - (r - row)) + c - column
                        yield cycle, "C", (r, c)
                    else:
                        held = "B" if dataflow == "ws" else "A"
                        address = (r, c) if dataflow == "ws" else (c, r)
                        yield begin + rows - 1 - (r - row), held, address
            begin += length


def replay_reads(order: list[Any], capacity: int) -> tuple[int, list[int]]:
    """Words fetched, and the cycles in which the buffer was full and emptied."""
    held: set[Any] = set()
    fetched, emptied = 0, []
    for cycle, _, address in order:
        if address not in held:
            held.add(address)
            fetched += 1
            if len(held) == capacity:
                held = set()
                emptied.append(cycle)
    return fetched, emptied


def replay_writes(order: list[Any], half: int, line_words: int, end: int) -> tuple[int, int, int]:
    """First and last cycle of DRAM writes and their number, line by line."""
    lines: list[int] = []
    open_line = counted = 0
    drained_until = 0
    cycles: list[int] = []

    def drain(cycle: int) -> int:
        nonlocal counted
        sent = lines[: -(-half // line_words)]
        del lines[: len(sent)]
        counted += (len(sent) - 1) * line_words + sent[-1]
        cycles.extend(range(cycle, cycle + len(sent)))
        return cycle + len(sent) - 1

    for stored, (cycle, _, _) in enumerate(order, 1):
        open_line += 1
        if open_line == line_words:
            lines.append(open_line)
            open_line = 0
        if cycle >= drained_until and stored - counted > half:
            lines += [open_line] if open_line else []
            open_line = 0
            drained_until = drain(cycle)
        assert stored - counted < 2 * half  # else the array would have to wait
    lines += [open_line] if open_line else []
    while lines:
        end = drain(end) + 1
    return min(cycles), max(cycles), counted


architectures = st.tuples(st.sampled_from(config.DATAFLOWS), st.integers(1, 6), st.integers(1, 6))
shapes = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 24))


def architecture_of(dataflow: str, rows: int, cols: int) -> config.Architecture:
    return config.Architecture("", "", rows, cols, dataflow, 1, 1, 1, False, 10, 10, 10)


def streams_and_orders(machine: Any, shape: Any) -> Iterator[tuple[str, Stream, list[Any]]]:
    streams = accesses.streams(architecture_of(*machine), Layer("", *shape))
    everything = sorted(matrix_order(*machine, shape), key=lambda access: access[0])
    for operand, stream in (("A", streams.ifmap), ("B", streams.filter), ("C", streams.ofmap)):
        yield operand, stream, [access for access in everything if access[1] == operand]


@given(architectures, shapes)
def test_cycle_of_every_access(machine: Any, shape: Any) -> None:
    for _, stream, order in streams_and_orders(machine, shape):
        assert [stream.cycle_of(rank) for rank in range(stream.words)] == [a[0] for a in order]
        assert stream.first_cycle == order[0][0]
        assert stream.last_cycle == order[-1][0]
        assert stream.words == len(order) == stream.passes * len({access[2] for access in order})


@given(architectures, shapes, st.integers(1, 6))
def test_reads_from_dram(machine: Any, shape: Any, set_words: int) -> None:
    sram_words, capacity = 100 * set_words, 50 * set_words
    for operand, stream, order in streams_and_orders(machine, shape):
        if operand == "C":
            continue
        fetched, emptied = replay_reads(order, capacity)
        traffic = buffers.calc_reads(stream, sram_words)
        assert traffic.words == fetched
        assert traffic.stop == (emptied[-1] + 1 if emptied else -1)
        if emptied:
            assert traffic.start == order[0][0] - math.ceil(capacity / 10)
        else:
            whole_sets = math.ceil(fetched / set_words) * set_words
            assert traffic.start == -math.ceil(whole_sets / 10)


@given(architectures, shapes, st.integers(1, 40))
def test_writes_to_dram(machine: Any, shape: Any, half: int) -> None:
    *_, (_, stream, order) = streams_and_orders(machine, shape)
    cols = machine[2]
    end = order[-1][0]
    traffic = buffers.writes(stream, 2 * half, cols, cols, end)
    assert traffic is not None
    assert (traffic.start, traffic.stop, traffic.words) == replay_writes(order, half, cols, end)


# What a user gives, and what is said about it.


@pytest.mark.parametrize(
    "gemms",
    [
        CSV.replace(",\n", "\n"),
        CSV.replace("\n", "\r\n"),
        "\ufeff" + CSV,
        CSV.replace("b,", "\n  \nb,"),
        CSV.replace("9,", "9, 2:4,"),
    ],
    ids=["no trailing comma", "CRLF", "byte order mark", "blank lines", "sparsity ratio"],
)
def test_variants_of_the_csv(tmp_path: Path, gemms: str) -> None:
    assert sim(tmp_path) == 0
    expected = [read(tmp_path, name) for name in reports.COLUMNS]
    assert sim(tmp_path, CFG, gemms) == 0
    assert [read(tmp_path, name) for name in reports.COLUMNS] == expected
    assert len(expected[0]) == 3


BAD_CSV = [
    ("", 1, ["empty", "header"]),
    ("Layer, M, N, K,\n", 1, ["no layers"]),
    ("a, 4, 4, 4,\n", 1, ["'a, 4, 4, 4,'", "header"]),
    ("h\na, 4, 4,\n", 2, ["3 fields", "M, N, K"]),
    ("h\nok, 1, 1, 1\n\na, 4, four, 4,\n", 4, ["N = 'four'", "whole number from 1"]),
    ("h\na, 0, 4, 4,\n", 2, ["M = '0'", "from 1 to 4294967295"]),
    ("h\na, 4, 4, -4,\n", 2, ["K = '-4'"]),
    ("h\na, 4, 4, 4.5,\n", 2, ["K = '4.5'"]),
    (f"h\na, 4, 4, {10**30},\n", 2, [f"K = '{10**30}'"]),
    ("h\na, ٤, 4, 4,\n", 2, ["M = '٤'"]),
    ("h\na, 4, 4, 4, 2,\n", 2, ["'2'", "sparsity ratio"]),
    ("h\na, 4, 4, 4, 0:4,\n", 2, ["'0:4'", "sparsity ratio"]),
    ("h\nconv, 56, 56, 3, 3, 64, 64, 1,\n", 2, ["8 fields", "convolution"]),
    ("h\nbig, 4294967295, 4294967295, 4294967295,\n", 2, ["4294967295", "exceed 2^63 - 1"]),
]


@pytest.mark.parametrize(("gemms", "line", "parts"), BAD_CSV)
def test_malformed_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gemms: str, line: int, parts: list[str]
) -> None:
    assert sim(tmp_path, CFG, gemms) == 2
    error = capsys.readouterr().err
    for part in [f"{tmp_path / 'gemm.csv'}:{line}: ", *parts]:
        assert part in error
    assert not (tmp_path / "out").exists()


BAD_CFG = [
    ("ArrayHeight = 4", "ArrayHeight = 0", 4, ["ArrayHeight = '0'", "from 1 to 65536"]),
    ("ArrayWidth = 4", "ArrayWidth = 4x", 5, ["ArrayWidth = '4x'", "[architecture_presets]"]),
    ("ArrayWidth = 4", "ArrayWidht = 4", 3, ["no key ArrayWidth", "'arraywidht'"]),
    ("ArrayWidth = 4", "ArrayWidth", 5, ["'ArrayWidth'", "key = value"]),
    ("ArrayWidth = 4", "ArrayHeight = 4", 5, ["arrayheight", "twice"]),
    ("Dataflow = ws", "Dataflow = rs", 13, ["Dataflow = 'rs'", "os, ws, is"]),
    ("Dataflow = ws", "Dataflow = WS", 13, ["Dataflow = 'WS'"]),
    ("OfmapSramSzkB = 1", "OfmapSramSzkB = -1", 8, ["OfmapSramSzkB = '-1'"]),
    ("= CALC", "= FAST", 15, ["InterfaceBandwidth = 'FAST'", "USER, CALC"]),
    ("[run_presets]", "[presets]", 16, ["no section [run_presets]", "InterfaceBandwidth"]),
    ("[run_presets]", "[general]", 14, ["[general]", "twice"]),
    ("run_name = demo", "run_name = ../up", 2, ["run_name = '../up'", "folder"]),
    ("run_name = demo", "run_name =", 2, ["run_name = ''"]),
    ("[general]\n", "", 1, ["run_name = demo", "section"]),
    ("= CALC", "= USER\n[sparsity]\nSparsitySupport = true", 17, ["SparsitySupport = 'true'"]),
    ("Trace = False", "Trace = False\n[sparsity]\nSparsitySupport = true", 18, ["not modelled"]),
]


@pytest.mark.parametrize(("old", "new", "line", "parts"), BAD_CFG)
def test_malformed_cfg(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    line: int,
    parts: list[str],
) -> None:
    assert old in CFG
    assert sim(tmp_path, CFG.replace(old, new, 1)) == 2
    error = capsys.readouterr().err
    for part in [f"{tmp_path / 'arch.cfg'}:{line}: ", *parts]:
        assert part in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("[layout]\nIfmapCustomLayout = True\n", ["IfmapCustomLayout", "bank conflicts"]),
        ("[layout]\nFilterSRAMBankBandwidth = 0\n", ["FilterSRAMBankBandwidth = '0'"]),
        ("[x]\n", ["Bandwidth = '4,fast'"]),
    ],
)
def test_malformed_user_cfg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, parts: list[str]
) -> None:
    cfg = CFG.replace("CALC", "USER") + section
    if "fast" in parts[0]:
        cfg = cfg.replace("Bandwidth = 10", "Bandwidth = 4,fast")
        parts = ["arch.cfg:12: ", "Bandwidth = 'fast'"]
    assert sim(tmp_path, cfg) == 2
    error = capsys.readouterr().err
    for part in parts:
        assert part in error


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.csv"
    path.write_bytes(b"h\na, 4, 4, 4,\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"binary\.csv:3: byte 0xff: expected UTF-8"):
        topology.read(path)
    with pytest.raises(ValueError, match=r"binary\.csv:3: byte 0xff"):
        config.read(path)


def test_files_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sim", "-c", "none.cfg", "-t", "none.csv", "-p", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "shmgemm: error: cannot read 'none.cfg': no such file or directory\n"
    )
    (tmp_path / "arch.cfg").write_text(CFG)
    words = ["sim", "-c", str(tmp_path / "arch.cfg"), "-t", "none/a.csv", "-p", str(tmp_path)]
    assert cli.main(words) == 1
    assert capsys.readouterr().err == (
        "shmgemm: error: cannot read 'none/a.csv': no folder 'none'\n"
    )
    (tmp_path / "out").write_text("a file")
    assert sim(tmp_path) == 1
    assert str(tmp_path / "out") in capsys.readouterr().err


def test_the_layout_file_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = tmp_path / "layout.csv"
    layout.write_text("Layer name, factor,\na, 1, 2,\n")
    assert sim(tmp_path, CFG, CSV, "-l", str(layout)) == 0
    layout.write_text("Layer name, factor,\na, 1, two,\n")
    assert sim(tmp_path, CFG, CSV, "-l", str(layout)) == 2
    assert f"{layout}:2: field 3: 'two'" in capsys.readouterr().err


def test_what_stalls_would_decide_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sim(tmp_path, CFG, CSV, "--json") == 0
    calc = json.loads(capsys.readouterr().out)
    assert sim(tmp_path, CFG.replace("CALC", "USER"), CSV, "--json") == 0
    captured = capsys.readouterr()
    user = json.loads(captured.out)
    assert "1 of 3 layers do not fit the SRAMs, first 'c'" in captured.err
    assert [layer["stall_free"] for layer in user["layers"]] == [True, True, False]
    assert user["layers"][2]["values"] == calc["layers"][2]["values"]
    assert all(layer["stall_free"] for layer in calc["layers"])


def test_json_has_the_files_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sim(tmp_path, CFG, CSV, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["total_cycles"] == 13 + 89 + 7309
    assert content["parameters"]["model"] == "scalesim_ws"
    assert len(content["preset_hash"]) == 12
    for name, columns in reports.COLUMNS.items():
        assert content["files"][name] == str(tmp_path / "out" / "demo" / name)
        for row, layer in zip(read(tmp_path, name), content["layers"], strict=True):
            assert [float(row[c]) for c in columns[1:]] == [layer["values"][c] for c in columns[1:]]


def test_the_table_names_layers_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long_name = "a.module.path.that.is.too.long.for.its.column"
    assert sim(tmp_path, CFG, CSV.replace("c,", f"{long_name},")) == 0
    output = capsys.readouterr().out
    assert "total: 7411 cycles in 3 layers" in output
    assert "too.long.for.its.column" in output
    assert all(name in output for name in reports.COLUMNS)


def test_a_model_must_exist_and_take_the_dataflow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sim(tmp_path, CFG, CSV, "--model", "gem5") == 2
    assert "model 'gem5': expected one of" in capsys.readouterr().err
    assert sim(tmp_path, CFG, CSV, "--model", "scalesim_os") == 2
    error = capsys.readouterr().err
    assert "dataflow" in error
    assert "arch.cfg" in error


def test_every_model_takes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for info in _core.models():
        choices = next((p.choices for p in info.parameters if p.name == "dataflow"), ["ws"])
        cfg = CFG.replace("Dataflow = ws", f"Dataflow = {choices[0]}")
        assert sim(tmp_path, cfg, CSV, "--model", info.name, "--json") == 0
        content = json.loads(capsys.readouterr().out)
        cycles = [
            _core.simulate_gemm(content["parameters"], *shape, input_bytes=1, output_bytes=1)
            for shape in ((4, 4, 4), (5, 7, 9), (33, 40, 65))
        ]
        rows = read(tmp_path, "COMPUTE_REPORT.csv")
        assert [row["Total Cycles"] for row in rows] == [str(each["cycles"]) for each in cycles]


@pytest.fixture(scope="module")
def cfg_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """tests/plugins/cfg_model.cpp, which declares a parameter for every figure of a cfg."""
    source = Path(__file__).parents[1] / "plugins" / "cfg_model.cpp"
    target = str(tmp_path_factory.mktemp("plugins") / "cfg_model.so")
    flags = plugins.cflags().split()
    subprocess.run(["g++", "-shared", "-fPIC", *flags, str(source), "-o", target], check=True)
    return target


def test_a_model_gets_the_figures_it_declares(
    tmp_path: Path, cfg_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = CFG.replace("Height = 4", "Height = 8")
    for number, operand in enumerate(("Ifmap", "Filter", "Ofmap"), 2):
        cfg = cfg.replace(f"{operand}SramSzkB = 1", f"{operand}SramSzkB = {number}")
    words = ["--plugin", cfg_model, "--model", "cfg", "--json"]
    assert sim(tmp_path, cfg, CSV, *words) == 0
    expected = {
        "model": "cfg",
        "clock": "1GHz",
        "rows": "8",
        "cols": "4",
        "dataflow": "ws",
        "scratchpad_a": "2KiB",
        "scratchpad_b": "3KiB",
        "accumulator": "4KiB",
    }
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    # CALC never stalls: the most that the model takes.
    assert _core.parse_quantity("memory_bw", parameters.pop("memory_bw"), "bytes/s") == 10**15
    assert parameters == expected
    assert sim(tmp_path, cfg.replace("CALC", "USER"), CSV, *words) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert captured.err == ""  # about SCALE-Sim's stalls, which are not this model's
    assert content["parameters"]["memory_bw"] == "10GB/s"  # 10 words a cycle at 1 GHz
    # One cycle, and as many as the bytes of A, B and C take at 10 a cycle.
    for row, (m, n, k) in zip(
        read(tmp_path, "COMPUTE_REPORT.csv"), ((4, 4, 4), (5, 7, 9), (33, 40, 65)), strict=True
    ):
        stall = math.ceil((m * k + k * n + m * n) / 10)
        assert (row["Total Cycles"], row["Stall Cycles"]) == (str(stall + 1), str(stall))
        assert row["Total Cycles (incl. prefetch)"] == row["Total Cycles"]
        assert float(row["Overall Util %"]) == pytest.approx(100 * m * n * k / (stall + 1))
    for row in read(tmp_path, "DETAILED_ACCESS_REPORT.csv"):
        left_out = [key for key, value in row.items() if key and not value]
        assert left_out == [key for key in row if key and key.endswith("Cycle")]
    assert read(tmp_path, "DETAILED_ACCESS_REPORT.csv")[1]["DRAM IFMAP Reads"] == "45"


def test_a_model_that_does_not_take_a_figure_says_which(
    tmp_path: Path, cfg_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--plugin", cfg_model, "--model", "cfg"]
    for old, new, part in (
        ("Dataflow = ws", "Dataflow = is", 'dataflow = "is"'),
        ("IfmapSramSzkB = 1", "IfmapSramSzkB = 1025", "scratchpad_a"),
        ("OfmapSramSzkB = 1", "OfmapSramSzkB = 1025", "accumulator"),
    ):
        assert sim(tmp_path, CFG.replace(old, new), CSV, *words) == 2
        error = capsys.readouterr().err
        assert f"{tmp_path / 'arch.cfg'}: for model cfg: " in error
        assert part in error


def test_one_multiplication_on_one_element(tmp_path: Path) -> None:
    cfg = CFG.replace("Height = 4", "Height = 1").replace("Width = 4", "Width = 1")
    assert sim(tmp_path, cfg.replace("= ws", "= os"), "h\none,1,1,1\n") == 0
    (row,) = read(tmp_path, "COMPUTE_REPORT.csv")
    assert (row["Total Cycles"], row["Overall Util %"]) == ("0", "0.0")
