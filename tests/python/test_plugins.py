"""Plug-ins: built by g++ with the flags the package prints, loaded everywhere, or refused and why.

Models that break their contract run in a real session: the op fails with a message that names the
model, the next one works. The model is tests/plugins/bad_model.cpp.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmgemm
from shmgemm import _core, cli, hardware, plugins
from shmgemm.engine import default_engine_path

BAD_MODEL = Path(__file__).parents[1] / "plugins" / "bad_model.cpp"
INCLUDE = Path(plugins.__file__).parent / "include"
UNLUCKY = 13  # as M


def build(source: Path, target: Path, *flags: str) -> Path:
    words = ["g++", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", *plugins.cflags().split()]
    subprocess.run([*words, *flags, str(source), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def bad_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(BAD_MODEL, tmp_path_factory.mktemp("plugins") / "bad_model.so", "-O2")


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A Python in which nothing is loaded; `stdout` and `stderr` of a script."""

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "import shmgemm\n" + textwrap.dedent(script)],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def product(core: Any, m: int) -> tuple[np.ndarray, Any]:
    """C = A B with k = 4, n = 5 through the compiled session, and its completion."""
    a = np.arange(m * 4, dtype=np.float32).reshape(m, 4)
    b = np.arange(20, dtype=np.float32).reshape(4, 5)
    c = np.empty((m, 5), dtype=np.float32)
    views = [(x.ctypes.data, 0, x.strides[0] // 4, 1) for x in (a, b, c)]
    done = core.gemm("gemm", m, 5, 4, 1, 1, 1, *views)
    assert np.array_equal(c, a @ b)
    return c, done


# --- everywhere models are used ------------------------------------------------------------------


def test_a_session_runs_it(bad_model: Path) -> None:
    chosen = {"model": "bad", "cycles": 21, "clock": "1MHz"}
    with shmgemm.open(plugins=bad_model, hardware=chosen, region="8MiB", devices=2) as session:
        assert session.info()["model"] == "bad"
        _, done = product(session.core, 3)
        assert done.end_cycles - done.start_cycles == 21
    assert next(i.file for i in _core.models() if i.name == "bad") == str(bad_model)
    timing = _core.simulate_gemm({"model": "bad", "cycles": "21"}, 2, 2, 2)
    assert (timing["cycles"], timing["peak_macs_per_cycle"]) == (21, 1)


def test_a_toml_file_may_choose_it(bad_model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[hardware]\nmodel = "bad"\ncycles = 5\n')
    plugins.load([bad_model])
    described = hardware.load(tmp_path / "mine.toml")
    assert described.parameters["behaviour"] == "well_behaved"
    (tmp_path / "mine.toml").write_text('[hardware]\nmodel = "bad"\ncycle = 5\n')
    with pytest.raises(ValueError, match=r"mine\.toml: cycle = \"5\".*did you mean \"cycles\""):
        hardware.load(tmp_path / "mine.toml")


@pytest.mark.parametrize("how", ["variable", "file"])
def test_settings_name_it(bad_model: Path, tmp_path: Path, fresh: Any, how: str) -> None:
    """Without a word in the program; the file's paths are relative to it."""
    environment = {"SHMGEMM_HARDWARE": str(tmp_path / "mine.toml"), "SHMGEMM_REGION": "8MiB"}
    (tmp_path / "mine.toml").write_text('[hardware]\nmodel = "bad"\n')
    if how == "variable":
        environment["SHMGEMM_PLUGINS"] = f"{bad_model}:{bad_model}"
    else:
        folder = tmp_path / "settings"
        folder.mkdir()
        shutil.copy(bad_model, folder / "copy.so")
        (folder / "shmgemm.toml").write_text('[session]\nplugins = ["copy.so"]\n')
        environment["SHMGEMM_CONFIG"] = str(folder / "shmgemm.toml")
    done = fresh("with shmgemm.open() as s: print(s.info()['model'])", **environment)
    assert (done.stdout, done.stderr) == ("bad\n", "")


def test_a_lost_engine_is_started_again_with_it(bad_model: Path) -> None:
    with shmgemm.open(plugins=[bad_model], hardware={"model": "bad"}, region="8MiB") as session:
        os.kill(session.core.engine_pid, signal.SIGKILL)
        limit = time.monotonic() + 10
        while session.core.engine_pid and time.monotonic() < limit:
            time.sleep(0.01)
        product(session.core, 3)
        assert session.info()["model"] == "bad"


def test_info_lists_it_with_its_file(bad_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--plugin", str(bad_model), "model", "bad"]) == 0
    text = capsys.readouterr().out
    for part in ("Breaks its contract", "behaviour", "well_behaved", "cycles", str(bad_model)):
        assert part in text
    assert cli.main(["info", "--plugin", str(bad_model)]) == 0
    assert f"Plug-in of bad\n  {bad_model}\n" in capsys.readouterr().out
    assert cli.main(["info", "--plugin", str(bad_model), "--json"]) == 0
    files = {row["name"]: row["file"] for row in json.loads(capsys.readouterr().out)["models"]}
    assert (files["bad"], files["scalesim_ws"]) == (str(bad_model), None)


def test_info_shows_the_rest_where_a_plugin_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["info", "--plugin", str(tmp_path / "absent.so")]) == 1
    captured = capsys.readouterr()
    assert "scalesim_ws" in captured.out
    assert "absent.so" in captured.err
    assert cli.main(["info", "--plugin", str(tmp_path / "absent.so"), "model", "bad"]) == 2


def test_the_command_prints_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugin", "--cflags"]) == 0
    assert capsys.readouterr().out == f"-std=c++17 -I{INCLUDE}\n"


@pytest.mark.parametrize("header", sorted(path.name for path in (INCLUDE / "model").glob("*.h")))
def test_every_installed_header_stands_alone(header: str, tmp_path: Path) -> None:
    (tmp_path / "one.cpp").write_text(f'#include "model/{header}"\n')
    build(tmp_path / "one.cpp", tmp_path / "one.so", "-fsyntax-only")


@pytest.mark.parametrize(
    "command", [["g++", "-fvisibility=hidden"], ["g++", "-std=c++20", "-O0"], ["clang++"]]
)
def test_other_ways_to_build(command: list[str], tmp_path: Path, fresh: Any) -> None:
    """Errors keep their types across the boundary, whatever the plug-in hides."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    target = str(tmp_path / "other.so")
    flags = plugins.cflags().split()
    subprocess.run(
        [command[0], *flags, *command[1:], "-shared", "-fPIC", str(BAD_MODEL), "-o", target],
        check=True,
    )
    done = fresh(f"""
        from shmgemm import _core, plugins
        plugins.load({target!r})
        print(_core.simulate_gemm({{"model": "bad"}}, 1, 1, 1)["cycles"])
        for behaviour in "refuses", "wrong_sum":
            try:
                _core.simulate_gemm({{"model": "bad", "behaviour": behaviour}}, 13, 1, 1)
            except (ValueError, shmgemm.ShmgemmError) as error:
                print(type(error).__name__)
    """)
    assert (done.stdout, done.stderr) == ("10\nValueError\nShmgemmError\n", "")


# --- what is refused -----------------------------------------------------------------------------

WITHOUT_A_MODEL = "int nothing() { return 0; }\n"
INCOMPLETE = "int absent();\nint present = absent();\n"
HEAD = '#include "model/registry.h"\n#include <stdexcept>\nusing namespace shmgemm::model;\n'
THROWS = (
    HEAD + 'static ModelInfo f() { throw std::runtime_error("no luck"); }\nRegistration r{f()};\n'
)
TAKEN = HEAD + (
    "static ModelInfo f() { ModelInfo i; i.name = NAME; i.create = [](const ModelContext&) {\n"
    "  return std::unique_ptr<TimingModel>(); }; PARAMETERS; return i; }\nRegistration r{f()};\n"
)


def source(name: str = '"scalesim_ws"', parameters: str = "") -> str:
    return TAKEN.replace("NAME", name).replace("PARAMETERS", parameters)


REFUSED: list[tuple[str, list[str]]] = [
    (WITHOUT_A_MODEL, ["registers no timing model", "Registration"]),
    (INCOMPLETE, ["undefined symbol", "absent", "g++ -shared"]),
    (THROWS, ["SIGABRT", "must not throw", "no luck"]),
    (source(), ['two models are named "scalesim_ws"', "built in"]),
    (source('"a b"'), ['"a b"', "expected 1 to 47 letters"]),
    (source('""'), ["expected 1 to 47 letters"]),
    (
        source('"lame"', 'i.parameters = {{"legs", Unit::kCount, "three", "x", 1, 4, {}}}'),
        ['model "lame"', "default", 'legs = "three"'],
    ),
    (source('"empty"', "i.create = nullptr"), ['model "empty" has no `create`']),
    # Another version of the interface is the first thing looked at, so that its layout is not.
    (source().replace("r{f()}", "r{f(), 99}"), ["version 99", "expects version 2"]),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_no_plugin_says_why(case: int, tmp_path: Path, fresh: Any) -> None:
    text, parts = REFUSED[case]
    (tmp_path / "plugin.cpp").write_text(text)
    build(tmp_path / "plugin.cpp", tmp_path / "plugin.so")
    done = fresh("""
        from shmgemm import _core
        before = [info.name for info in _core.models()]
        for _ in range(2):
            try:
                shmgemm.open(plugins="plugin.so", region="8MiB")
            except ValueError as error:
                print(error)
        assert [info.name for info in _core.models()] == before
        shmgemm.open(plugins=[], region="8MiB").close()
    """)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == second
    for part in [str(tmp_path / "plugin.so"), *parts]:
        assert part in first


def test_what_is_no_shared_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.so"
    with pytest.raises(FileNotFoundError, match=re.escape(f'"{path}": no such file')):
        shmgemm.open(plugins=path)
    path.write_text("int main() {}")
    with pytest.raises(ValueError, match=r"text\.so.*not an ELF file; expected a shared object"):
        shmgemm.open(plugins=path)
    monkeypatch.setenv("SHMGEMM_PLUGINS", str(path))
    with pytest.raises(ValueError, match=r"text\.so.*\(SHMGEMM_PLUGINS\)"):
        shmgemm.open(region="8MiB")
    with pytest.raises(ValueError, match="argument plugins = 3: expected paths"):
        shmgemm.open(plugins=3)  # type: ignore[arg-type]


def test_a_file_that_was_built_again_needs_a_new_process(
    bad_model: Path, tmp_path: Path, fresh: Any
) -> None:
    shutil.copy(bad_model, tmp_path / "mine.so")
    shutil.copy(bad_model, tmp_path / "newer.so")
    done = fresh("""
        import os
        from shmgemm import plugins
        plugins.load("mine.so")
        plugins.load("mine.so")
        os.replace("newer.so", "mine.so")
        try:
            plugins.load("mine.so")
        except ValueError as error:
            print(error)
    """)
    assert done.stderr == ""
    assert "mine.so" in done.stdout and "start a new process" in done.stdout


def test_the_engine_checks_for_itself(bad_model: Path, tmp_path: Path) -> None:
    """It may be another one than ours; its words reach the caller."""
    (tmp_path / "text.so").write_text("no plug-in")
    with pytest.raises(shmgemm.Unsupported, match=r"engine: plug-in .*text\.so.*not an ELF file"):
        _core.Session(
            engine_path=default_engine_path(),
            parameters={},
            plugins=[str(tmp_path / "text.so")],
            region_bytes=8 << 20,
        )


# --- a model that fails its op -------------------------------------------------------------------

FAILS = [
    "throws",
    "throws_a_number",
    "never_ends",
    "stands_still",
    "jumps_on",
    "goes_back",
    "leaves_events",
    "throws_later",
    "wrong_sum",
    "huge_sum",
]


@pytest.mark.parametrize("behaviour", FAILS)
def test_an_op_fails_and_the_next_one_works(
    behaviour: str, bad_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = {"model": "bad", "behaviour": behaviour}
    with shmgemm.open(plugins=bad_model, hardware=chosen, region="8MiB", strict=True) as session:
        engine = session.core.engine_pid
        for _ in range(2):
            with pytest.raises(shmgemm.ShmgemmError, match='timing model "bad"') as caught:
                product(session.core, UNLUCKY)
            assert type(caught.value) is shmgemm.ShmgemmError
            _, done = product(session.core, 3)
            assert done.end_cycles - done.start_cycles == 10
        assert session.core.engine_pid == engine
        assert session.stats()["rejects"] == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all('timing model "bad", GEMM M=13 N=5 K=4 batch=1: failed:' in line for line in lines)


def test_a_refusal_is_unsupported(bad_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chosen = {"model": "bad", "behaviour": "refuses"}
    with shmgemm.open(plugins=bad_model, hardware=chosen, region="8MiB") as session:
        with pytest.raises(shmgemm.Unsupported, match='timing model "bad"'):
            product(session.core, UNLUCKY)
        product(session.core, 3)
    assert "M = 13 is unlucky" in capfd.readouterr().err


def test_an_op_that_fails_falls_back_to_the_cpu(bad_model: Path) -> None:
    torch = pytest.importorskip("torch")
    chosen = {"model": "bad", "behaviour": "throws"}
    a, b = torch.randn(UNLUCKY, 4), torch.randn(4, 5)
    with shmgemm.open(plugins=bad_model, hardware=chosen, region="8MiB"):
        with pytest.warns(shmgemm.FallbackWarning, match='CPU.*timing model "bad"'):
            c = shmgemm.gemm(a, b)
        torch.testing.assert_close(c.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


def test_a_model_that_cannot_be_made(bad_model: Path) -> None:
    chosen = {"model": "bad", "behaviour": "throws_when_made"}
    with pytest.raises(shmgemm.ShmgemmError, match='timing model "bad" cannot be made: made'):
        shmgemm.open(plugins=bad_model, hardware=chosen, region="8MiB")


def test_ctrl_c_ends_a_simulation_without_a_session(bad_model: Path, fresh: Any) -> None:
    done = fresh(f"""
        import signal
        from shmgemm import _core, plugins
        plugins.load({str(bad_model)!r})
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            _core.simulate_gemm({{"model": "bad", "behaviour": "runs_on"}}, 13, 1, 1)
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
