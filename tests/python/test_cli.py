"""The command line as a user meets it: real processes, exit codes, one-line errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shmgemm
from shmgemm import cli


def shell(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shmgemm", *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_version(tmp_path: Path) -> None:
    done = shell("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"shmgemm {shmgemm.__version__}\n")


def test_help_lists_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    done = shell("--help", cwd=tmp_path)
    assert done.returncode == 0
    for command in cli.COMMANDS:
        assert f"\n    {command}" in done.stdout
    script = (
        "import sys, contextlib, shmgemm.cli as cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'transformers', 'matplotlib', 'shmgemm._core'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    check = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: shmgemm {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["fly"], ["run"], ["run", "--engine", "magic", "x.py"]])
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "usage: shmgemm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "environment", "code", "message"),
    [
        (["run", "none.py"], {}, 1, "none.py: no such script, and not a model; models: minilm"),
        (["run", "--sentence", "hi", "x.py"], {}, 2, "--sentence is for `shmgemm run minilm`"),
        (["run", "--hardware", "tpu_v9", "x.py"], {}, 2, "hardware = 'tpu_v9': no such preset"),
        (["run", "--engine", "sst", "x.py"], {"PATH": "/none"}, 2, "no sst-config on PATH"),
        (["run", "x.py"], {"SHMGEMM_REGION": "3 bananas"}, 2, "SHMGEMM_REGION"),
        (["run", "x.py"], {"SHMGEMM_ENGINE_PATH": "/bin/true"}, 1, "ended before it was ready"),
    ],
)
def test_an_error_is_one_line(
    words: list[str], environment: dict[str, str], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.py").write_text("print('not reached')\n")
    done = shell(*words, cwd=tmp_path, **environment)
    assert done.returncode == code
    assert done.stderr.startswith("shmgemm: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "not reached" not in done.stdout


def test_debug_shows_the_traceback_of_an_error(tmp_path: Path) -> None:
    done = shell("run", "none.py", cwd=tmp_path, SHMGEMM_LOG="debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "none.py: no such script" in done.stderr


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "shmgemm", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_interrupts_end_with_130(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "shmgemm: interrupted\n"
