"""`shmgemm doctor`: it finds what is there, names what is not, and its products are right."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from shmgemm.cli import doctor, main
from shmgemm.guest import _cache, _debian, _kernel, _programs
from shmgemm.guest._progress import Progress


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


def test_what_a_guest_needs_is_looked_for_and_nothing_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_kernel, "TARBALL", tmp_path / "linux.tar.xz")
    monkeypatch.setattr(_debian, "BUILD", {"bc": "/bin/sh", "flex": str(tmp_path / "flex")})
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)
    guest = ("QEMU", "cross gcc", "kernel source", "guest tools", "guest image", "QEMU plug-in")
    assert not any(found[name]["ok"] or found[name]["required"] for name in guest[1:])
    assert found["cross gcc"]["text"] == "no riscv64-linux-gnu-gcc on PATH"
    assert found["kernel source"]["text"] == f"no {tmp_path / 'linux.tar.xz'}"
    assert str(found["guest tools"]["text"]).endswith("flex")
    assert str(found["guest tools"]["advice"]).endswith(" flex")
    assert "shmgemm guest build" in str(found["guest image"]["advice"])
    assert not (tmp_path / "cache").exists()


def test_what_is_built_for_a_guest_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_debian, "source_version", lambda package: "1.0")
    assert doctor._doctor_guest._plugin().text == "virtio-sst-plugin is not built"
    plugin = _programs.plugin
    monkeypatch.setattr(_programs, "qemu_headers", lambda progress: (tmp_path, tmp_path))
    monkeypatch.setattr(_cache, "run", lambda *words, **options: "")
    made = plugin(Progress(show=False)).parent
    finding = doctor._doctor_guest._plugin()
    assert (finding.ok, finding.text) == (True, f"{made.name} in {tmp_path / 'shmgemm'}")


class PretendedGuest:
    """A session's guest, and the session: what doctor asks both for."""

    pid = 7

    def __init__(self, status: dict[str, Any]) -> None:
        self.guest = self
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._answer = json.dumps(status).encode()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            assert connection.recv(9) == struct.pack(">IIB", 0xDEADBEEF, 0, 17)
            connection.sendall(struct.pack(">I", len(self._answer)) + self._answer)

    def stats(self) -> dict[str, int]:
        return {"commands": 2}

    def exec(self, words: list[str]) -> tuple[int, str]:
        assert words == ["sstctl", "info"]
        return (
            0,
            "driver           ABI 1.0, device 0, interrupts: MSI-X\nregion           4 bytes\n",
        )

    def close(self) -> None:
        self._thread.join()


STATUS = {
    "state": "device",
    "reason": "",
    "counters": {"commands": 5, "matrix_bytes": 0},
    "driver": {"commands": 6},
    "virtio_device": {"commands": 6},
    "info": {"engine": "embedded", "model": "systolic", "link_commands": 6},
}


def told(status: dict[str, Any]) -> list[doctor.Party]:
    pretended = PretendedGuest(status)
    parties = doctor._doctor_guest.parties(cast(Any, pretended))
    pretended.close()
    return parties


def test_every_party_of_a_guest_has_a_line() -> None:
    parties = told(STATUS)
    assert all(party.ok for party in parties)
    assert [party.name for party in parties] == [
        *("client", "device server", "driver", "QEMU's device", "engine")
    ]
    assert parties[2].text == "/dev/sst0, ABI 1.0, device 0, interrupts: MSI-X: 6 commands"


@pytest.mark.parametrize(
    ("wrong", "party"),
    [
        ({"state": "cpu", "reason": "no engine"}, 1),
        ({"counters": {"commands": 5, "matrix_bytes": 8}}, 1),
        ({"driver": {"commands": 1}}, 2),
        ({"virtio_device": None}, 3),
        ({"info": None}, 4),
    ],
)
def test_a_party_that_saw_no_command_is_wrong(wrong: dict[str, Any], party: int) -> None:
    parties = told(STATUS | wrong)
    assert [index for index, one in enumerate(parties) if not one.ok] == [party]


def test_bits_and_cycles_must_be_the_direct_paths() -> None:
    through = doctor.Trial("x", 0.0, 10, "abc", True)
    assert through.against(through).ok
    assert not through.against(replace(through, cycles=11)).ok
    assert not through.against(replace(through, digest="abd")).ok


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
