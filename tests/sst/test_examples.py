"""The examples of the element, by plain `sst`: without a host program, and with memHierarchy."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from plain_sst import EXAMPLES, command, has_memory_hierarchy, play, statistics

import shmgemm
from shmgemm import sst

DEVICE_CYCLES = ("busy", "fill_drain", "memory_stall", "dispatch", "idle")


def shapes() -> list[tuple[int, int, int]]:
    lines = (EXAMPLES / "gemms.csv").read_text().splitlines()[1:]
    return [tuple(int(field) for field in line.split(",")[1:4]) for line in lines]  # type: ignore[misc]


def cycles_of(parameters: dict[str, object]) -> int:
    """Of the file's GEMMs one after the other, by the embedded engine's model."""
    hardware = shmgemm.hardware.load(parameters).parameters
    return sum(
        shmgemm._core.simulate_gemm(hardware, m, n, k, input_bytes=4, output_bytes=4)["cycles"]
        for m, n, k in shapes()
    )


def test_one_device_takes_the_models_cycles(tmp_path: Path) -> None:
    output = play(EXAMPLES / "one_device.py", tmp_path)
    device = statistics(tmp_path / "one_device.csv")["device"]
    spent = sum(device[f"{name}_cycles"] for name in DEVICE_CYCLES[:-1])
    assert spent == device["gemm_cycles"]
    assert spent == cycles_of({"clock": "940MHz", "arrays": 2, "memory_bw": "450GB/s"})
    assert device["ops"] == device["gemms"] == len(shapes())
    assert device["macs"] == sum(m * n * k for m, n, k in shapes())
    assert device["rejects"] == 0
    said = re.search(r"simulated time: ([\d.]+) us", output)
    assert said is not None, output
    total = spent + device["idle_cycles"]
    assert float(said[1]) == pytest.approx(total / 940, rel=1e-3)


def test_a_clock_cores_and_a_bandwidth_are_a_gpu(tmp_path: Path) -> None:
    text = (EXAMPLES / "one_device.py").read_text()
    given = {"clock": "2GHz", "cores": 8, "memory_bw": "100GB/s"}
    (tmp_path / "gpu.py").write_text(
        re.sub(r"device.addParams\(.*\)", f"device.addParams({given})", text)
    )
    (tmp_path / "gemms.csv").write_text((EXAMPLES / "gemms.csv").read_text())
    play(tmp_path / "gpu.py", tmp_path)
    device = statistics(tmp_path / "one_device.csv")["device"]
    assert device["gemm_cycles"] == cycles_of({"model": "simt", **given})


def test_four_devices_each_take_their_models_cycles(tmp_path: Path) -> None:
    play(EXAMPLES / "four_devices.py", tmp_path)
    found = statistics(tmp_path / "four_devices.csv")
    models = ("systolic", "simt", "ws_double_buffered", "scalesim_os")
    totals = set()
    for index, model in enumerate(models):
        device = found[f"device{index}"]
        assert device["gemm_cycles"] == cycles_of({"model": model, "clock": "1GHz"}), model
        totals.add(sum(device[f"{name}_cycles"] for name in DEVICE_CYCLES))
    assert len(totals) == 1, "every device has seen the same time"


def test_memory_of_the_simulation(tmp_path: Path) -> None:
    if not has_memory_hierarchy():
        pytest.skip("needs sst-config of an SST with memHierarchy")
    seen = []
    for access_time in ("20ns", "400ns"):
        folder = tmp_path / access_time
        folder.mkdir()
        play(EXAMPLES / "memory.py", folder, access_time)
        found = statistics(folder / "memory.csv")
        device, cache = found["device"], found["cache"]
        assert device["gemms"] == len(shapes())
        reads = sum(device[f"memory_read_bytes_{operand}"] for operand in "abc")
        writes = device["memory_write_bytes_c"]
        assert cache["GetS_recv"] * 64 == reads
        assert cache["Write_recv" if "Write_recv" in cache else "GetX_recv"] * 64 == writes
        seen.append((device["gemm_cycles"], device["memory_stall_cycles"], reads, writes))
    fast, slow = seen
    assert slow[0] > fast[0] and slow[1] > fast[1], "slower memory, more cycles, by stalls"
    assert slow[2:] == fast[2:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,M,N,K\nx,1,2\n", "gemms.csv:2: .*expected name, M, N, K"),
        ("name,M,N,K\nx,1,2,3\ny,1,0,3\n", r"gemms.csv:3: N = "),
        ("name,M,N,K\nx,1,two,3\n", r"gemms.csv:2: N = "),
        ("name,M,N,K\n", "no GEMM"),
        (None, "cannot be read"),
    ],
)
def test_a_malformed_csv_is_an_error_at_start(
    tmp_path: Path, content: str | None, message: str
) -> None:
    config = tmp_path / "one_device.py"
    config.write_text((EXAMPLES / "one_device.py").read_text())
    if content is not None:
        (tmp_path / "gemms.csv").write_text(content)
    assert re.search(message, play(config, tmp_path, status=1))


TWO_THREADS = """
import sst
port = sst.Component("port", "shmgemm.HostPort")
port.addParam("host", "none")
device = sst.Component("device", "shmgemm.GemmDevice")
source = sst.Component("source", "shmgemm.CommandSource")
source.addParam("file", "gemms.csv")
sst.Link("commands").connect((source, "device", "1ns"), (device, "commands", "1ns"))
sst.setStatisticLoadLevel(2)
sst.setStatisticOutput("sst.statOutputCSV", {"filepath": "found.csv"})
sst.enableAllStatisticsForAllComponents()
"""


def test_port_and_device_share_a_thread_and_others_need_not(tmp_path: Path) -> None:
    (tmp_path / "gemms.csv").write_text((EXAMPLES / "gemms.csv").read_text())
    config = tmp_path / "system.py"

    def run(**threads: int) -> subprocess.CompletedProcess[str]:
        places = "".join(f"{name}.setRank(0, {thread})\n" for name, thread in threads.items())
        config.write_text(TWO_THREADS + places)
        line = command(config, "-n", "2", "--partitioner=self")
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    apart = run(port=0, device=1, source=0)
    assert apart.returncode != 0
    assert "device is on thread 1, this HostPort on thread 0: keep both on one" in apart.stderr

    together = run(port=0, device=0, source=1)
    assert together.returncode == 0, together.stderr
    (output,) = tmp_path.glob("found*.csv")
    found = statistics(output)
    assert found["device"]["gemm_cycles"] == cycles_of({})


def test_sst_info_documents_every_parameter() -> None:
    program = Path(sst.find().executable).parent / "sst-info"
    text = subprocess.run(
        [program, "shmgemm"],
        env={**os.environ, "SST_LIB_PATH": str(sst.library_folder())},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    for name in ("GemmDevice", "HostPort", "CommandSource", "memory_stall_cycles"):
        assert name in text
    for info in (info for info in shmgemm._core.models() if not info.file):  # no plug-ins
        for parameter in info.parameters:
            line = next(
                (x for x in text.splitlines() if re.search(rf"\b{parameter.name}: ", x)), ""
            )
            assert parameter.meaning.split(":")[0] in line, (info.name, parameter.name)
