"""`shmgemm validate`: 30 layers through SCALE-Sim itself; that a wrong figure would be found."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shmgemm import _core, cli, hardware
from shmgemm.errors import ShmgemmError
from shmgemm.scalesim import config, reports
from shmgemm.validation import PARTS, Options, _environment, arrays, part, scalesim, tpu_v3

ALL_COLUMNS = {name for columns in reports.COLUMNS.values() for name in columns[1:]}


def test_thirty_layers_agree_with_scalesim(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["validate", "scalesim", "--cases", "30", "--seed", "3", "--json"])
    result = json.loads(capsys.readouterr().out)["scalesim"]
    assert result["mismatches"] == []
    assert (code, result["cases"], result["equal"]) == (0, 30, 30)
    assert set(result["columns"]) == ALL_COLUMNS
    assert all(column["equal"] == 30 for column in result["columns"].values())
    assert result["total_cycles"] > 10_000


def test_cases_are_seeded_and_cover_what_matters() -> None:
    runs = scalesim.draw(300, 1)
    assert runs == scalesim.draw(300, 1)
    assert runs != scalesim.draw(300, 2)
    layers = [layer for run in runs for layer in run.layers]
    assert len(layers) == 300
    sizes = {size for layer in layers for size in (layer.m, layer.n, layer.k)}
    assert min(sizes) == 1
    assert 256 < max(sizes) <= scalesim.MAX_DIMENSION
    for dataflow in config.DATAFLOWS:
        for mode in ("CALC", "USER"):
            assert any(f"Dataflow = {dataflow}" in run.cfg and mode in run.cfg for run in runs)
    for rows in (4, 16, 128):
        edges = {
            size
            for run in runs
            if f"ArrayHeight = {rows}\n" in run.cfg
            for layer in run.layers
            for size in (layer.m, layer.n, layer.k)
        }
        assert {rows - 1, rows, rows + 1} <= edges


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Ours in the place of SCALE-Sim's files, with one text replaced in one report."""

    def pretend(name: str, old: str, new: str) -> None:
        def run_theirs(_: Path, folders: Sequence[Path], *__: Any) -> None:
            for folder in folders:
                scalesim._run_ours(folder)
                shutil.copytree(folder / "ours", folder / "theirs", dirs_exist_ok=True)
            path = folders[0] / "theirs" / "run" / name
            content = path.read_text()
            assert old in content
            path.write_text(content.replace(old, new, 1))

        monkeypatch.setattr(scalesim, "python_with", lambda *_: Path("/absent"))
        monkeypatch.setattr(scalesim, "_run_theirs", run_theirs)

    return pretend


@pytest.mark.parametrize("name", reports.COLUMNS)
def test_a_difference_is_counted_shown_and_fails(
    name: str, pretended: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    pretended(name, "\n0, ", "\n0, 9")  # the first column of the first layer
    column = reports.COLUMNS[name][1]
    assert cli.main(["validate", "scalesim", "--cases", "20", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)["scalesim"]
    assert (result["cases"], result["equal"]) == (20, 19)
    assert {key for key, value in result["columns"].items() if value["equal"] < 20} == {column}
    assert result["columns"][column]["max_error_percent"] > 0
    assert [bad["column"] for bad in result["mismatches"]] == [column]
    assert cli.main(["validate", "scalesim", "--cases", "20"]) == 1
    output = capsys.readouterr().out
    assert "19 of 20 layers equal" in output
    assert f"differs: {column}: " in output
    assert f"at most {scalesim.MAX_CYCLES} cycles" in output


def test_a_missing_layer_is_an_error(
    pretended: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretended("COMPUTE_REPORT.csv", "\n", "\n")
    run_theirs: Callable[..., None] = scalesim._run_theirs

    def drop_a_layer(python: Path, folders: Sequence[Path], *rest: Any) -> None:
        run_theirs(python, folders, *rest)
        for path in (folders[0] / "theirs" / "run").iterdir():
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))

    monkeypatch.setattr(scalesim, "_run_theirs", drop_a_layer)
    assert cli.main(["validate", "scalesim", "--cases", "20"]) == 1
    assert "SCALE-Sim reported 1, shmgemm 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cases", "0"], "--cases 0: expected at least 1"),
        (["gem5"], "part 'gem5': expected some of scalesim"),
    ],
)
def test_bad_arguments(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", *words]) == 2
    assert message in capsys.readouterr().err


def test_every_part_is_complete() -> None:
    for name in PARTS:
        module = part(name)
        assert callable(module.run)
        assert callable(module.passed)
        assert callable(module.table)


def test_the_preset_is_close_to_the_measured_gemms(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "tpu_v3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["tpu_v3"]
    assert [row["measured"] for row in result["rows"]] == [3101, 9490, 47099, 317435]
    assert result["calibrated"] == ["dispatch"]
    assert result["mae"] <= 5
    assert result["mae_leave_one_out"] <= 5
    errors = {name: round(error, 1) for name, error in result["simulators"].items()}
    published = {"SCALE-Sim v3": 30.7, "MAESTRO": 46.2, "Timeloop": 47.0}
    assert errors.items() >= published.items()
    named = {*result["calibrated"], *result["assumed"], *result["specified"], "model"}
    assert named == hardware.load("tpu_v3").parameters.keys()


def test_leave_one_out_does_not_see_the_row_left_out() -> None:
    rows = tpu_v3.MEASURED
    for row in rows:
        others = [other for other in rows if other is not row]
        fitted = tpu_v3.calibrate(others)
        for nearby in (fitted - 25, fitted + 25):  # no better on what it was fitted to
            assert mean_error(others, fitted) <= mean_error(others, max(0, nearby))


def mean_error(rows: Sequence[tpu_v3.Measured], dispatch: int) -> float:
    total = 0.0
    for row in rows:
        parameters = hardware.load("tpu_v3", {"dispatch": dispatch}).parameters
        size = row.size
        cycles = _core.simulate_gemm(parameters, size, size, size)["cycles"]
        total += abs(cycles - row.cycles) / row.cycles
    return total / len(rows)


def test_a_preset_far_from_the_measurements_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpu_v3, "PRESET", "tpu_v2")
    assert not tpu_v3.passed(tpu_v3.run(Options()))


def test_systolic_takes_the_cycles_of_the_register_level_array(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["validate", "arrays", "--cases", "150", "--seed", "5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["arrays"]
    found = result["systolic"]
    assert (found["cases"], found["equal"], found["max_error"]) == (150, 150, 0)
    assert result["ws_double_buffered"]["cases"] > 20


def test_a_model_that_differs_from_the_array_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate = _core.simulate_gemm

    def one_cycle_more(parameters: dict[str, str], *shape: int) -> dict[str, Any]:
        report = simulate(parameters, *shape)
        return {**report, "cycles": report["cycles"] + (shape == case[3:])}

    case = arrays._draw(random.Random(1))
    monkeypatch.setattr(_core, "simulate_gemm", one_cycle_more)
    result = arrays.run(Options(cases=20, seed=1))
    assert result["systolic"]["equal"] == 19
    assert not arrays.passed(result)
    assert any(line.startswith("differs: ") for line in arrays.table(result))


def write_wheel(path: Path) -> None:
    """A wheel of one empty module `tool`, for pip."""
    info = "tool-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tool.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tool\nVersion: 1.0\n")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\n{tags}")
        wheel.writestr(f"{info}/RECORD", "")


def test_an_environment_that_cannot_be_made_says_why_and_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wheel = tmp_path / "tool-1.0-py3-none-any.whl"
    told: list[str] = []
    with pytest.raises(ShmgemmError, match="cannot make the environment") as error:
        _environment.python_with("tool", [str(wheel)], told.append)
    assert wheel.name in str(error.value).splitlines()[-1]
    assert len(told) == 1

    write_wheel(wheel)
    python = _environment.python_with("tool", [str(wheel)], told.append)
    assert python.is_relative_to(tmp_path / "shmgemm")
    assert len(told) == 3  # it is being made, it is made
    assert subprocess.run([python, "-I", "-c", "import tool"], check=False).returncode == 0
    assert _environment.python_with("tool", [str(wheel)], told.append) == python
    assert len(told) == 3


def test_a_failing_scalesim_is_reported(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'numpy is broken' >&2\nexit 3\n")
    python.chmod(0o755)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(ShmgemmError, match="ended with 3:\nnumpy is broken"):
        scalesim._run_theirs(python, folders, [1, 1], lambda _: None)
