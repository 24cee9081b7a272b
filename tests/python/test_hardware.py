"""Hardware from presets, files, mappings and overrides; errors with file, key, value and range."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmgemm
from shmgemm import _core, hardware

# Peak multiply-accumulates per second that the sources of the presets give or imply.
PEAK_MACS_PER_SECOND = {
    "tpu_v1": 256 * 256 * 700e6,  # 92 TOPS
    "tpu_v2": 128 * 128 * 700e6,  # 46 TFLOPS a chip of two cores
    "tpu_v3": 2 * 128 * 128 * 940e6,  # 123 TFLOPS a chip of two cores
    "tpu_v4": 4 * 128 * 128 * 1050e6,  # 275 TFLOPS a chip of two cores
    "gemmini": 16 * 16 * 1e9,
    "gpu_128": 128 * 8 * 64 * 1e9,  # 8 tensor cores of 64 in each of a V100's cores
}


def write(path: Path, body: str) -> Path:
    path.write_text(body, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", hardware.presets())
def test_every_preset_is_legal_and_cited(name: str) -> None:
    device = hardware.load(name)
    assert device.name == name
    assert device.source
    assert device.description
    assert device.note
    assert device.clock_hz > 0
    for names in (device.calibrated, device.assumed):
        assert set(names) <= device.parameters.keys()
    assert _core.check_hardware(device.parameters) == device.parameters


@pytest.mark.parametrize(("name", "peak"), PEAK_MACS_PER_SECOND.items())
def test_presets_have_the_published_peak(name: str, peak: float) -> None:
    device = hardware.load(name)
    timing = _core.simulate_gemm(device.parameters, 1, 1, 1)
    assert timing["peak_macs_per_cycle"] * device.clock_hz == peak


def test_the_default_is_tpu_v3() -> None:
    assert hardware.load() == hardware.load("tpu_v3")
    assert hardware.load().clock_hz == 940_000_000


def test_teaching_preset_takes_the_cycles_its_note_says() -> None:
    device = hardware.load("tiny_4x4_ws")
    stated = re.search(r"takes (\d+) cycles", device.note)
    assert stated is not None
    assert _core.simulate_gemm(device.parameters, 4, 4, 4)["cycles"] == int(stated[1])


def test_gpu_128_is_clock_cores_and_bandwidth_alone() -> None:
    three = {"clock": "1GHz", "cores": 128, "memory_bw": "900GB/s"}
    assert hardware.load({"model": "simt", **three}).digest == hardware.load("gpu_128").digest


def test_a_file_by_path(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.toml", 'source = "me"\n[hardware]\nrows = 8\nclock = "1.5GHz"\n')
    for given_as in (path, str(path)):
        device = hardware.load(given_as)
        assert (device.name, device.source, device.path) == ("mine", "me", str(path))
        assert device.parameters["rows"] == "8"
        assert device.clock_hz == 1_500_000_000


def test_a_mapping() -> None:
    device = hardware.load({"dataflow": "os", "rows": 4, "cols": "4"})
    assert device.name == "custom"
    assert device.path is None
    assert (device.model, device.parameters["dataflow"]) == ("systolic", "os")


def test_overrides_replace_and_are_remembered() -> None:
    device = hardware.load("tpu_v3", {"rows": 64, "clock": "1GHz"})
    assert device.parameters["rows"] == "64"
    assert device.parameters["cols"] == "128"
    assert device.label == "tpu_v3 + rows=64, clock=1GHz"
    assert hardware.load("tpu_v3").label == "tpu_v3"


@pytest.mark.parametrize("base", ["scalesim_32x32_os", "tpu_v3", {"model": "scalesim_is"}])
@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_a_model_override_drops_what_it_does_not_know(
    base: str | dict[str, str], dataflow: str
) -> None:
    device = hardware.load(base, {"model": f"scalesim_{dataflow}"})
    assert device.model == f"scalesim_{dataflow}"
    assert device.parameters["dataflow"] == dataflow
    assert device.parameters.keys() == {"model", "clock", "rows", "cols", "dataflow"}


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_a_dataflow_override(dataflow: str) -> None:
    device = hardware.load("tpu_v3", {"dataflow": dataflow})
    assert (device.model, device.parameters["dataflow"]) == ("systolic", dataflow)


def test_contradictory_parameters_are_an_error() -> None:
    with pytest.raises(ValueError, match="contradicts"):
        hardware.load("tpu_v3", {"model": "scalesim_ws", "dataflow": "os"})
    with pytest.raises(ValueError, match="contradicts"):
        hardware.load("scalesim_32x32_os", {"dataflow": "ws"})


def test_digest_is_of_the_values_not_of_their_spelling() -> None:
    plain = hardware.load("tpu_v3")
    assert hardware.load("tpu_v3", {"clock": "0.94GHz", "rows": "128"}).digest == plain.digest
    assert hardware.load(plain.parameters).digest == plain.digest
    assert hardware.load("tpu_v3", {"rows": 127}).digest != plain.digest
    assert re.fullmatch(r"[0-9a-f]{12}", plain.digest)


def test_digests_of_presets_differ() -> None:
    digests = [hardware.load(name).digest for name in hardware.presets()]
    assert len(set(digests)) == len(digests)


@given(st.integers(1, 65536), st.integers(1, 65536))
def test_sizes_pass_through(rows: int, cols: int) -> None:
    device = hardware.load({"model": "scalesim_ws", "rows": rows, "cols": cols})
    assert (device.parameters["rows"], device.parameters["cols"]) == (str(rows), str(cols))


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("[hardware]\nrow = 8\n", ["row", '"8"', 'did you mean "rows"']),
        ("[hardware]\nrows = 0\n", ["rows", '"0"', "from 1 to 4096"]),
        ("[hardware]\nrows = -8\n", ["rows", '"-8": out of range', "from 1 to 4096"]),
        ("[hardware]\nrows = 8.5\n", ["rows", "8.5", "whole number"]),
        ("[hardware]\nrows = true\n", ["rows", "True", "whole number"]),
        ("[hardware]\nrows = [8]\n", ["rows", "[8]", "whole number"]),
        ("[hardware]\nclock = 940\n", ["clock", '"940"', "no unit", "MHz", "1kHz to 100GHz"]),
        ('[hardware]\nclock = "940 mhz"\n', ["clock", "mhz", "MHz"]),
        ('[hardware]\nclock = "16MiB"\n', ["clock", "16MiB", "frequency"]),
        ('[hardware]\ndataflow = "xx"\n', ["dataflow", '"xx"', "os, ws, is"]),
        ('[hardware]\nmodel = "scalesim"\n', ["model", "scalesim_ws"]),
        ('[hardware]\nmodel = "scalesim_ws"\ndataflow = "os"\n', ["contradicts"]),
        ("rows = 8\n", ["rows", "8", "[hardware]"]),
        ('descripton = "x"\n[hardware]\n', ["descripton", "did you mean description"]),
        ("source = 3\n[hardware]\n", ["source", "3", "a string"]),
        ("assumed = 3\n[hardware]\nrows = 8\n", ["assumed", "3", "a list of keys", "rows"]),
        ('calibrated = ["cols"]\n[hardware]\nrows = 8\n', ["calibrated", "cols", "rows"]),
        (
            '[hardware]\nscratchpad_b = "1KiB"\n',
            ["scratchpad_b", '"1KiB"', "two tiles of B of 128x128 elements", '"128KiB"'],
        ),
        ('[hardware]\nmemory_bw = "0GB/s"\n', ["memory_bw", "0GB/s", "1MB/s"]),
        ('[hardware]\nmemory_bw = "450GB"\n', ["memory_bw", "450GB", "bandwidth"]),
        ('[hardware]\nmodel = "scalesim_ws"\narrays = 2\n', ["arrays", "unknown parameter"]),
        ("hardware = 3\n", ["hardware", "3", "a table"]),
        ("", ["no table [hardware]"]),
        ("[hardware\n", ["not TOML", "line 1"]),
        (b"\xff\xfe", ["not TOML", "utf-8", "0xff"]),
    ],
)
def test_a_bad_file_is_named_with_key_value_and_range(
    tmp_path: Path, body: str | bytes, parts: list[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    with pytest.raises(ValueError) as caught:
        hardware.load(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_a_bad_override_is_named_as_one() -> None:
    with pytest.raises(ValueError, match=r"overrides of 'tpu_v3': rows = \"0\": .*1 to 4096"):
        hardware.load("tpu_v3", {"rows": 0})
    with pytest.raises(ValueError, match="overrides of 'tpu_v3': rows = None"):
        hardware.load("tpu_v3", {"rows": None})


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'tpu_3'.*did you mean.*tpu_v3") as caught:
        hardware.load("tpu_3")
    for name in hardware.presets():
        assert name in str(caught.value)


def test_an_empty_table_is_the_default_of_everything(tmp_path: Path) -> None:
    empty = hardware.load(write(tmp_path / "empty.toml", "[hardware]\n"))
    assert empty.parameters == hardware.load({}).parameters


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        ("absent.toml", FileNotFoundError, "no such file or directory"),
        ("no_folder/absent.toml", FileNotFoundError, "no folder 'no_folder'"),
        ("./", IsADirectoryError, "is a directory"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: type[OSError], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        hardware.load(path)
    assert str(caught.value) == f"hardware = {str(Path(path))!r}: {reason}"
    assert caught.value.errno is not None


def test_hardware_from_elsewhere_is_named_with_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shmgemm.toml", '[session]\nhardware = "zzz"\n')
    with pytest.raises(ValueError, match=r"^shmgemm\.toml: \[session\] hardware = 'zzz': no such"):
        shmgemm.open()
    monkeypatch.setenv("SHMGEMM_HARDWARE", "zzz")
    with pytest.raises(ValueError, match=r"^environment SHMGEMM_HARDWARE = 'zzz': no such preset"):
        shmgemm.open()
    monkeypatch.setenv("SHMGEMM_HARDWARE", "zzz.toml")
    with pytest.raises(FileNotFoundError, match=r"^environment SHMGEMM_HARDWARE = 'zzz\.toml': no"):
        shmgemm.open()
    with pytest.raises(ValueError, match=r"^argument hardware = 'yyy': no such preset"):
        shmgemm.open(hardware="yyy")
