"""`shmgemm info` shows what the core and the settings say, in 80 columns and as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shmgemm import _core, hardware, settings
from shmgemm.cli import _compare, info


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for setting in settings.SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("SHMGEMM_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    info.add_parser(parser.add_subparsers())
    args = parser.parse_args(["info", *arguments])
    code: int = args.func(args)
    return code


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(*arguments) == 0
    return capsys.readouterr().out


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(output(capsys, *arguments, "--json"))
    return content


PAGES = [
    (),
    *(("preset", name) for name in hardware.presets()),
    *(("model", model.name) for model in _core.models()),
]


@pytest.mark.parametrize("arguments", PAGES)
def test_pages_fit_a_terminal(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    lines = output(capsys, *arguments).splitlines()
    assert len(lines) > 5
    path = arguments and hardware.load(arguments[1]).path if arguments[:1] == ("preset",) else None
    assert [line for line in lines if len(line) > 80 and line.strip() != path] == []


def test_overview_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys)
    names = [
        *hardware.presets(),
        *(model.name for model in _core.models()),
        *(parameter.name for parameter in _core.device_parameters()),
        *settings.SETTINGS,
        "bfloat16",
    ]
    assert [name for name in names if name not in text] == []


def test_overview_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    content = report(capsys)
    assert [row["name"] for row in content["presets"]] == hardware.presets()
    assert [row["name"] for row in content["models"]] == [m.name for m in _core.models()]
    assert {row["input"]: row["outputs"] for row in content["dtypes"]}["int8"] == ["int32"]
    assert content["limits"]["min_region_bytes"] == 4 << 20
    digests = {row["name"]: row["digest"] for row in content["presets"]}
    assert digests["tpu_v3"] == hardware.load("tpu_v3").digest


def test_settings_with_value_and_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("shmgemm.toml").write_text('[session]\nregion = "64MiB"\n', encoding="utf-8")
    monkeypatch.setenv("SHMGEMM_DEVICES", "3")
    content = report(capsys)
    rows = {row["name"]: (row["value"], row["origin"]) for row in content["settings"]}
    assert rows["region"] == (64 << 20, "shmgemm.toml")
    assert rows["devices"] == (3, "SHMGEMM_DEVICES")
    assert rows["engine"] == ("embedded", "default")
    assert content["settings_file"] == "shmgemm.toml"
    text = output(capsys)
    assert "64MiB" in text
    assert "SHMGEMM_DEVICES" in text


def test_a_bad_setting_is_shown_and_is_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHMGEMM_DEVICES", "many")
    assert run() == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "INVALID" in text
    assert "SHMGEMM_DEVICES = 'many'" in text


def test_preset(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "preset", "tpu_v3")
    for part in ("940MHz", "32768 MAC/cycle", "Norrie", hardware.load("tpu_v3").digest):
        assert part in text
    flat = " ".join(text.split())
    assert "dispatch 560 calibrated" in flat
    assert "scratchpad_a 6MiB assumed" in flat
    content = report(capsys, "preset", "tpu_v3")
    assert content["parameters"] == hardware.load("tpu_v3").parameters
    assert content["peak_macs_per_cycle"] == 2 * 128 * 128
    assert content["peak_flops"] == 4 * 128 * 128 * 940_000_000
    assert content["calibrated"] == ["dispatch"]
    example = content["example"]
    assert example["shape"] == [1024, 1024, 1024]
    assert example["cycles"] == pytest.approx(47099, rel=0.05)  # measured
    assert example["mapping"]["tile"] == [512, 512, 256]


def test_a_preset_of_a_closed_form(capsys: pytest.CaptureFixture[str]) -> None:
    content = report(capsys, "preset", "scalesim_32x32_os")
    # ⌈1024/32⌉² folds of 32 + 32 + 1024 - 2 cycles, less 1.
    assert content["example"]["cycles"] == 32 * 32 * 1086 - 1
    assert content["example"]["mapping"] is None


def test_preset_by_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[hardware]\nrows = 4\n", encoding="utf-8")
    assert report(capsys, "preset", str(path))["parameters"]["rows"] == "4"


def test_model(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(output(capsys, "model", "scalesim_ws").split())
    assert "from 1 to 65536" in text
    names = [row["name"] for row in report(capsys, "model", "scalesim_ws")["parameters"]]
    assert names == ["rows", "cols", "dataflow"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("preset", "tpu_v9"), ["tpu_v9", "tpu_v3"]),
        (("model", "gem5"), ["gem5", "scalesim_ws"]),
        (("preset",), ["which one", "gemmini"]),
        (("model",), ["which one", "scalesim_os"]),
        (("preset", "absent.toml"), ["absent.toml"]),
    ],
)
def test_what_does_not_exist(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], parts: list[str]
) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in parts:
        assert part in captured.err


def test_compare_shows_a_column_for_each_preset(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "compare", "tpu_v1", "tpu_v3", "gpu_128").splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line[:20].strip(): line[20:].split() for line in lines if line}
    assert lines[0].split() == ["tpu_v1", "tpu_v3", "gpu_128"]
    assert rows["model"] == ["systolic", "systolic", "simt"]
    assert rows["clock, MHz"] == ["700", "940", "1000"]
    assert rows["peak, TFLOPS"] == ["91.75", "61.6", "131.1"]
    assert rows["memory, GB/s"] == ["34", "450", "900"]
    assert rows["balance, FLOP/byte"] == ["2699", "136.9", "145.6"]  # 131072 / 900
    # The wave by hand in test_simt.
    wave = 1000 + 292 + 32 * 1024 + 4661
    assert rows["1024x1024x1024"][2] == f"{wave:,}"
    assert {"256x256x256", "1x1024x1024", "512x1536x384"} <= rows.keys()


def test_compare_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    shapes = ("128x256x384", "1x1x1")
    content = report(capsys, "compare", "tpu_v3", "gpu_128", "--gemm", *shapes)
    assert [row["name"] for row in content["presets"]] == ["tpu_v3", "gpu_128"]
    for row in content["presets"]:
        device = hardware.load(row["name"])
        assert (row["digest"], row["clock_hz"]) == (device.digest, device.clock_hz)
        assert [gemm["shape"] for gemm in row["gemms"]] == [[128, 256, 384], [1, 1, 1]]
        for gemm in row["gemms"]:
            m, n, k = gemm["shape"]
            assert gemm["seconds"] == gemm["cycles"] / device.clock_hz
            flops = 2 * m * n * k / gemm["seconds"]
            assert gemm["utilization"] == pytest.approx(flops / row["peak_flops"])
    gpu = content["presets"][1]
    assert gpu["memory_bytes_per_s"] == 900_000_000_000
    assert gpu["balance_flop_per_byte"] == pytest.approx(131072 / 900)
    assert content["presets"][0]["memory_bytes_per_s"] == 450_000_000_000


def test_compare_with_a_model_without_memory(capsys: pytest.CaptureFixture[str]) -> None:
    content = report(capsys, "compare", "tiny_4x4_ws")
    assert content["presets"][0]["memory_bytes_per_s"] is None
    assert content["presets"][0]["balance_flop_per_byte"] is None


def test_compare_takes_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "one_pe.toml"
    path.write_text("[hardware]\nrows = 1\ncols = 1\n", encoding="utf-8")
    content = report(capsys, "compare", str(path), "--gemm", "1x1x1")
    assert content["presets"][0]["name"] == "one_pe"
    # 450 bytes a cycle: A and B are there in cycle 1, B enters the PE, A in cycle 2, C leaves in 3.
    assert content["presets"][0]["gemms"] == [
        {"shape": [1, 1, 1], "cycles": 4, "seconds": 4e-9, "utilization": 0.25}
    ]


def test_compare_fits_any_number_of_presets(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / f"{'long' * 30}.toml"
    path.write_text("[hardware]\nrows = 4\n", encoding="utf-8")
    text = output(capsys, "compare", *hardware.presets(), str(path), *hardware.presets())
    assert max(map(len, text.splitlines())) <= 80
    assert all(text.count(f" {name}") >= 2 for name in hardware.presets())


def test_on_chip_bytes_are_all_buffers_of_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers = [SimpleNamespace(name=name, unit="bytes") for name in ("one", "other")]
    model = SimpleNamespace(name="m", parameters=[*buffers, SimpleNamespace(name="cores", unit="")])
    monkeypatch.setattr(_core, "models", lambda: [model])
    parameters = {"model": "m", "one": "1KiB", "other": "512B", "cores": "4"}
    assert _compare._on_chip_bytes(hardware.Hardware("h", parameters, None, "")) == 4 * 1536


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("tpu_v9",), ["tpu_v9", "tpu_v3"]),
        (("absent.toml",), ["absent.toml"]),
        (("tpu_v3", "--gemm", "4x4"), ["4x4", "MxNxK"]),
        (("tpu_v3", "--gemm", "4x-4x4"), ["4x-4x4", "MxNxK"]),
        (("tpu_v3", "--gemm", "0x4x4"), ["m = 0", "from 1"]),
        (("gpu_128", "--gemm", "x".join(["4294967295"] * 3)), ["M=4294967295", "2^63"]),
    ],
)
def test_compare_refuses(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], parts: list[str]
) -> None:
    assert run("compare", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in parts:
        assert part in captured.err
