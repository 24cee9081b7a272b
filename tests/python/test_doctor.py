"""`shmgemm doctor`: it finds what is there, names what is not, and its products are right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shmgemm.cli import doctor, main


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    report = json.loads(capsys.readouterr().out)
    return {finding["name"]: finding for finding in report["findings"]}


def test_everything_required_is_found_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)
    required = {name for name, finding in found.items() if finding["required"]}
    assert {"memfd", "futex", "pidfd", "memory", "engine", "OpenBLAS"} <= required
    assert all(found[name]["ok"] for name in required)
    assert found["CPUs"]["text"] == f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}"
    assert found["torch"]["ok"]
    assert not found["SST"]["required"]


def test_the_text_fits_the_terminal_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SHMGEMM_ENGINE_PATH", str(tmp_path / "no-engine"))
    assert main(["doctor", "--run"]) == 1
    captured = capsys.readouterr()
    engine_path = str(tmp_path / "no-engine")
    assert all(len(line) <= 80 for line in captured.out.splitlines() if engine_path not in line)
    assert "MISSING engine" in captured.out
    assert "set SHMGEMM_ENGINE_PATH" in captured.out
    assert "-       SST           no sst-config on PATH" in captured.out
    assert "-       QEMU          no qemu-system-riscv64 on PATH" in captured.out
    assert captured.err == "shmgemm: error: required and not found: engine\n"


def test_programs_on_the_path_are_asked_for_their_version(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name, answer in (
        ("sst-config", tmp_path),
        ("sst", "SST-Core Version 1.2.3"),
        ("qemu-system-riscv64", "QEMU 7"),
    ):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\necho {answer}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)
    assert found["QEMU"] == {
        "name": "QEMU",
        "ok": True,
        "text": f"QEMU 7 ({program})",
        "required": False,
        "advice": "",
    }
    # Whatever this package's element was built for, it was not that.
    assert found["SST"]["text"].startswith("1.2.3, ")
    assert not found["SST"]["ok"] and "for --engine sst" in found["SST"]["advice"]


def test_an_engine_that_does_not_start_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho 'libx.so: cannot open shared object file' >&2\nexit 127\n")
    engine.chmod(0o755)
    monkeypatch.setenv("SHMGEMM_ENGINE_PATH", str(engine))
    finding = doctor._engine()
    assert (finding.ok, finding.text) == (False, "libx.so: cannot open shared object file")
    assert "site-packages" in finding.advice


def test_a_tight_limit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limits = {resource.RLIMIT_FSIZE: 1 << 20}
    nothing = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda what: (limits.get(what, nothing), nothing))
    finding = doctor._limits()
    assert not finding.ok
    assert "FSIZE below 268,435,456" in finding.advice


def test_run_checks_two_products_against_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--run", "--hardware", "tiny_4x4_ws", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["trials"]
    assert (first["name"], second["name"]) == ("4x8 @ 8x16", "linear 32x128->256")
    assert first["cycles"] == 2 * 4 * (2 * 4 + 4 + 4 - 2) - 1  # SCALE-Sim's folds on a 4 x 4 array
    assert second["cycles"] == 32 * 64 * (2 * 4 + 4 + 32 - 2) - 1
    assert 0 < first["largest_difference"] < 1e-4
    assert 0 < second["largest_difference"] < 1e-4


def test_a_wrong_product_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shmgemm import _arrays

    right = _arrays.gemm
    monkeypatch.setattr(_arrays, "gemm", lambda a, b: right(a, b) + 1)
    assert main(["doctor", "--run"]) == 1
    output = capsys.readouterr().out
    assert "WRONG   4x8 @ 8x16" in output
    assert "ok      linear 32x128->256" in output


def test_debug_shows_each_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHMGEMM_LOG", "debug")
    assert main(["doctor", "--run"]) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("shmgemm: ")]
    assert any("gemm 4x8 @ 8x16" in line for line in lines)
    assert any("linear 32x128 @ 128x256" in line for line in lines)
