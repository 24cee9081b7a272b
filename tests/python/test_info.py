"""`shmgemm info` shows what the core and the settings say, in 80 columns and as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from shmgemm import _core, hardware, settings
from shmgemm.cli import info


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
    for part in ("940MHz", "16384 MAC/cycle", "Norrie", hardware.load("tpu_v3").digest):
        assert part in text
    content = report(capsys, "preset", "tpu_v3")
    assert content["parameters"] == hardware.load("tpu_v3").parameters
    assert content["peak_macs_per_cycle"] == 128 * 128
    assert content["peak_flops"] == 2 * 128 * 128 * 940_000_000
    # ⌈1024/128⌉² folds of 2 x 128 + 128 + 1024 - 2 cycles, less 1.
    assert content["example"] == {"shape": [1024, 1024, 1024], "cycles": 64 * 1406 - 1}


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
