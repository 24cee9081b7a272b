"""A timing model of one's own as a SubComponent: the example, compiled as its head comment says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from harness import open_small, product_is_right
from plain_sst import play, statistics

import shmgemm
from shmgemm import sst

SHAPES = ((7, 5, 3), (64, 48, 100), (1, 1, 1))
RATE, STARTUP = 10, 4

CONFIGURATION = """
import sst
sst.Component("engine", "shmgemm.HostPort").addParam("host", "none")
device = sst.Component("device", "shmgemm.GemmDevice")
device.addParams({parameters})
slot = device.setSubComponent("timing_model", "{kind}")
slot.addParams({own})
source = sst.Component("source", "shmgemm.CommandSource")
source.addParam("file", "gemms.csv")
sst.Link("commands").connect((source, "device", "1ns"), (device, "commands", "1ns"))
sst.setStatisticLoadLevel(2)
sst.setStatisticOutput("sst.statOutputCSV", {{"filepath": "found.csv"}})
sst.enableAllStatisticsForAllComponents()
"""


def system(
    folder: Path, kind: str = "fixed_rate.FixedRate", own: object = None, **parameters: object
) -> Path:
    lines = [f"x, {m}, {n}, {k}" for m, n, k in SHAPES]
    (folder / "gemms.csv").write_text("\n".join(["name, M, N, K", *lines]) + "\n")
    config = folder / "system.py"
    own = {"macs_per_cycle": RATE, "startup": STARTUP} if own is None else own
    config.write_text(CONFIGURATION.format(kind=kind, own=own, parameters=parameters))
    return config


def expected_cycles() -> int:
    return sum(-(-m * n * k // RATE) + STARTUP for m, n, k in SHAPES)


def test_the_model_in_the_slot_says_the_cycles(tmp_path: Path, elements: Path) -> None:
    play(system(tmp_path, clock="2GHz"), tmp_path, libraries=(elements,))
    device = statistics(tmp_path / "found.csv")["device"]
    assert device["gemm_cycles"] == expected_cycles()
    assert device["dispatch_cycles"] == STARTUP * len(SHAPES)
    assert device["macs"] == sum(m * n * k for m, n, k in SHAPES)


def test_a_session_on_it(tmp_path: Path, elements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "system.py"
    config.write_text(
        "import sst\n"
        'sst.Component("host", "shmgemm.HostPort")\n'
        'device = sst.Component("device", "shmgemm.GemmDevice")\n'
        'device.addParam("clock", "940MHz")\n'
        'slot = device.setSubComponent("timing_model", "fixed_rate.FixedRate")\n'
        f'slot.addParams({{"macs_per_cycle": {RATE}, "startup": {STARTUP}}})\n'
    )
    monkeypatch.setenv("SST_LIB_PATH", str(elements))
    with open_small(sst_config=config) as session:  # tpu_v3, whose clock is 940 MHz
        assert product_is_right(session, 48)
        info = session.info()
        assert info["now_cycles"] == -(-(48**3) // RATE) + STARTUP
        assert info["model"] == "fixed_rate.FixedRate"
        assert info["peak_macs_per_cycle"] == RATE
        assert session.hardware.model == "fixed_rate.FixedRate"
        assert session.hardware.parameters == {"model": "fixed_rate.FixedRate", "clock": "940MHz"}
    with pytest.raises(ValueError, match="clock_hz = 940000000, the session was"):
        open_small(sst_config=config, clock="1GHz")


@pytest.mark.parametrize(
    ("kind", "own", "parameters", "message"),
    [
        ("fixed_rate.FixedRate", {"macs_per_cycle": 0}, {}, "FixedRate.*macs_per_cycle = 0"),
        ("fixed_rate.FixedRate", {}, {"model": "simt"}, 'model = "simt", but its slot'),
        ("fixed_rate.FixedRate", {}, {"rows": 8}, 'rows = "8": unknown parameter'),
        ("fixed_rate.FixedRate", {}, {"clock": "8"}, 'clock = "8"'),
        ("probe.Failing", {}, {}, "probe.Failing.*no model today"),
        ("probe.Older", {}, {}, "built for version 1000 of the model interface"),
        ("probe.Missing", {}, {}, "is no shmgemm::.*or its element library is not found"),
        ("shmgemm.GemmDevice", {}, {}, 'slot "timing_model" is no shmgemm::sst_element'),
    ],
)
def test_what_cannot_be_in_the_slot_is_an_error_at_start(
    tmp_path: Path, elements: Path, kind: str, own: object, parameters: dict, message: str
) -> None:
    config = system(tmp_path, kind, own, **parameters)
    said = play(config, tmp_path, status=1, libraries=(elements,))
    assert re.search(message, said), said


def test_sst_info_knows_the_slot_and_what_fits(elements: Path) -> None:
    program = Path(sst.find().executable).with_name("sst-info")
    path = f"{elements}:{sst.library_folder()}"
    text = subprocess.run(
        [program, "fixed_rate", "shmgemm"],
        env={**os.environ, "SST_LIB_PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert "timing_model" in text
    assert "shmgemm::sst_element::TimingModelSlot" in text
    assert "macs_per_cycle: multiply-accumulate operations in a cycle" in text


def test_without_the_slot_the_models_stay(tmp_path: Path) -> None:
    config = system(tmp_path, model="simt")
    text = re.sub(r"slot.*\n", "", config.read_text())
    config.write_text(text)
    play(config, tmp_path)
    parameters = shmgemm.hardware.load({"model": "simt"}).parameters
    cycles = sum(
        shmgemm._core.simulate_gemm(parameters, *shape, input_bytes=4, output_bytes=4)["cycles"]
        for shape in SHAPES
    )
    assert statistics(tmp_path / "found.csv")["device"]["gemm_cycles"] == cycles
