"""Sessions on SST: start and stop, idling, signals, and every start that cannot be."""

from __future__ import annotations

import csv
import gc
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import (
    LongProduct,
    cpu_ticks,
    finish,
    is_gone,
    open_long,
    open_small,
    product_is_right,
    python,
    read_line,
    report,
    wait_for,
    wait_until_busy,
)

import shmgemm
from shmgemm import sst
from shmgemm.errors import Unsupported


def talking_sst(folder: Path) -> tuple[str, Path]:
    """An `sst` whose standard output goes to a file instead of nowhere."""
    output = folder / "sst.txt"
    script = folder / "sst"
    script.write_text(f'#!/bin/sh\nexec {sst.find().executable} "$@" > {output}\n')
    script.chmod(0o755)
    return str(script), output


STARTS = int(os.environ.get("SHMGEMM_TEST_STARTS", "100"))


def test_a_hundred_starts_and_stops_leave_nothing(
    engine_processes: Callable[[], list[int]],
) -> None:
    open_small().close()
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(STARTS):
        with open_small() as session:
            pid = session.core.engine_pid
            assert session.core.noop().status == 0
        assert is_gone(pid)
    del session
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert engine_processes() == []


def test_products_are_right_and_a_reset_zeroes_the_counters() -> None:
    with open_small(devices=3) as session:
        assert product_is_right(session)
        assert session.info()["ops"] == 1
        session.reset()
        assert session.info()["ops"] == 0
        assert session.info()["devices"] == 3


def test_idle_it_sleeps_and_its_time_stands_still() -> None:
    with open_small() as session:
        assert product_is_right(session)
        before = session.info()["now_cycles"]
        time.sleep(0.3)  # it may have had something to tidy up
        begin = cpu_ticks(session.core.engine_pid)
        time.sleep(2)
        spent = cpu_ticks(session.core.engine_pid) - begin
        print(f"measured: CPU of an idle SST in 2 s: {spent * 10} ms")
        assert spent < 100  # a loop that looks all the time would have taken 200 ticks
        assert session.info()["now_cycles"] == before


@pytest.mark.parametrize(("clock", "picoseconds"), [("1GHz", 1000), ("940MHz", 1e6 / 940)])
def test_ssts_time_is_the_cycles_time(tmp_path: Path, clock: str, picoseconds: float) -> None:
    program, output = talking_sst(tmp_path)
    with open_small(engine_path=program, clock=clock) as session:
        assert product_is_right(session)
        time.sleep(0.2)
        assert product_is_right(session)
        cycles = session.info()["now_cycles"]
    said = re.search(r"simulated time: ([\d.]+) (\w+)", output.read_text())
    assert said is not None, output.read_text()
    scale = {"ps": 1, "ns": 1e3, "us": 1e6, "ms": 1e9}[said[2]]
    assert float(said[1]) * scale == pytest.approx(cycles * picoseconds, rel=1e-4)


def test_a_terminals_ctrl_c_is_the_sessions_alone() -> None:
    host = python("""
        session = open_small()
        try:
            print(session.core.engine_pid, flush=True)
            time.sleep(30)
        except KeyboardInterrupt:
            pass
        assert product_is_right(session) and session.stats()["engine_starts"] == 1
        session.close()
        """)
    engine = int(read_line(host))
    os.killpg(host.pid, signal.SIGINT)
    finish(host)
    assert is_gone(engine)


def test_ctrl_c_interrupts_a_long_product() -> None:
    host = python("""
        session = open_long()
        long = LongProduct(session.core)
        try:
            print(session.core.engine_pid, flush=True)
            while True:
                long.run()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        session.close()
        """)
    engine = int(read_line(host))
    wait_until_busy(engine)
    os.killpg(host.pid, signal.SIGINT)
    output, _ = finish(host)
    assert "interrupted" in output
    assert is_gone(engine)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_sst_is_a_loss_and_marks_the_region(
    number: signal.Signals, tmp_path: Path
) -> None:
    program, output = talking_sst(tmp_path)
    with open_small(engine_path=program) as session:
        assert product_is_right(session)
        first = session.core.engine_pid
        begin = time.monotonic()
        os.kill(first, number)
        wait_for(lambda: session.core.engine_pid == 0, "loss noticed")
        report(f"{number.name} to loss", time.monotonic() - begin)
        assert "EMERGENCY SHUTDOWN" in output.read_text()
        assert product_is_right(session)
        assert session.core.engine_pid != first


def test_status_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    with open_small() as session:
        assert product_is_right(session)
        os.kill(session.core.engine_pid, signal.SIGUSR2)
        time.sleep(0.3)
    text = capfd.readouterr().err
    assert re.search(r"host: cycle \d+, waits for its host", text), text
    assert "device0: device 0, model systolic, 1 commands ended, 0 rejected" in text


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_hosts_death_is_its_end(state: str) -> None:
    host = python(f"""
        session = open_long()
        long = LongProduct(session.core)
        print(session.core.engine_pid, flush=True)
        while {state == "busy"}:
            long.run()
        time.sleep(60)
        """)
    engine = int(read_line(host))
    if state == "busy":
        wait_until_busy(engine)
    host.kill()
    host.communicate()
    report("host killed, SST ended", wait_for(lambda: is_gone(engine), "SST ended"))


def test_hardware_that_cannot_be_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows"):
        open_small(rows=-1)
    config = tmp_path / "mine.py"
    config.write_text(
        "import sst\n"
        'sst.Component("host", "shmgemm.HostPort")\n'
        'sst.Component("device", "shmgemm.GemmDevice").addParams({"row": 8})\n'
    )
    with pytest.raises(Unsupported, match=r'device .*row = "8": unknown parameter; did you mean'):
        open_small(sst_config=config)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('sst.Component("host", "shmgemm.HostPort").addParam("regoin_fd", 3)', "unknown parameter"),
        (
            'sst.Component("host", "shmgemm.HostPort")\nsst.Component("other", "shmgemm.HostPort")',
            "one shmgemm.HostPort",
        ),
        ('sst.Component("host", "shmgemm.HostPort")', "0 shmgemm.GemmDevice"),
        (
            'sst.Component("host", "shmgemm.HostPort")\n'
            'sst.Component("a", "shmgemm.GemmDevice").addParam("device", 1)',
            "no device 0",
        ),
        (
            'sst.Component("host", "shmgemm.HostPort")\n'
            'sst.Component("a", "shmgemm.GemmDevice")\n'
            'sst.Component("b", "shmgemm.GemmDevice")',
            "is the number of a",
        ),
        (
            'sst.Component("host", "shmgemm.HostPort")\n'
            'sst.Component("a", "shmgemm.GemmDevice")\n'
            'sst.Component("b", "shmgemm.GemmDevice").addParams({"device": 1, "clock": "2GHz"})',
            "need one clock",
        ),
        (
            'sst.Component("host", "shmgemm.HostPort").addParam("region_fd", 0)\n'
            'sst.Component("a", "shmgemm.GemmDevice")',
            "region",
        ),
        (
            'sst.Component("host", "shmgemm.HostPort")\n'
            'sst.Component("a", "shmgemm.GemmDevice").addParams({"model": "none_such"})',
            "none_such",
        ),
        (
            'sst.Component("host", "shmgemm.HostPort").addParam("control_fd", 999)\n'
            'sst.Component("a", "shmgemm.GemmDevice")',
            r"exit status",
        ),
        (
            'sst.Component("host", "shmgemm.HostPort")\n'
            'device = sst.Component("a", "shmgemm.GemmDevice")\n'
            'device.setSubComponent("memory", "shmgemm.CommandSource")',
            'its slot "memory" is no SST::Interfaces::StandardMem',
        ),
    ],
)
def test_a_configuration_that_cannot_be(tmp_path: Path, lines: str, message: str) -> None:
    config = tmp_path / "mine.py"
    config.write_text(f"import sst\n{lines}\n")
    with pytest.raises(shmgemm.ShmgemmError, match=message):
        open_small(sst_config=config)


def test_a_configuration_of_ones_own(tmp_path: Path) -> None:
    text = subprocess.run(
        [sys.executable, "-m", "shmgemm", "sst-config", "--hardware", "gemmini", "--devices", "2"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    config = tmp_path / "mine.py"
    config.write_text(text)
    with open_small(sst_config=config, hardware="gemmini", devices=2) as session:
        assert product_is_right(session)
    for wrong in ({"hardware": "tpu_v3", "devices": 2}, {"hardware": "gemmini", "devices": 1}):
        with pytest.raises(ValueError, match="the session was opened with"):
            open_small(sst_config=config, **wrong)
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_small(sst_config=tmp_path / "other.py")


def test_statistics_of_a_session_add_up(tmp_path: Path) -> None:
    text = sst.configuration_text(shmgemm.hardware.load("gemmini"), 2)
    config, output = tmp_path / "mine.py", tmp_path / "statistics.csv"
    config.write_text(
        f"{text}\nsst.setStatisticLoadLevel(3)\n"
        f'sst.setStatisticOutput("sst.statOutputCSV", {{"filepath": {str(output)!r}}})\n'
        "sst.enableAllStatisticsForAllComponents()\n"
    )
    with open_small(sst_config=config, hardware="gemmini", devices=2) as session:
        session.core.set_profiling(True)
        for size in (7, 48, 100):
            assert product_is_right(session, size)
        records = session.core.take_records()
        now = session.info()["now_cycles"]
    found: dict[str, dict[str, int]] = {}
    with output.open() as lines:
        for row in csv.DictReader(lines, skipinitialspace=True):
            of = found.setdefault(row["ComponentName"], {})
            of[row["StatisticName"]] = int(row["Sum.u64"])
    used, unused = found["device0"], found["device1"]
    parts = ("busy", "fill_drain", "memory_stall")
    for part in parts:
        assert used[f"{part}_cycles"] == sum(getattr(r, f"{part}_cycles") for r in records), part
    for device in (used, unused):
        assert sum(device[f"{part}_cycles"] for part in (*parts, "dispatch", "idle")) == now
    assert used["gemms"] == 3 and unused["gemms"] == 0
    assert used["macs"] == 7**3 + 48**3 + 100**3
    assert used["memory_write_bytes_c"] == 4 * (7**2 + 48**2 + 100**2)


def fake_sst(folder: Path, version: str) -> None:
    """Where programs answer as those of an SST do."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, answer in (("sst-config", folder), ("sst", version)):
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("SST-Core Version (16.0.0)", "16.0.0"),
        ("SST-Core Version (-dev)", "dev"),
        ("SST-Core Version (-dev, git branch : devel, SHA: 1.2a9b)", "dev"),
    ],
)
def test_the_version_of_an_sst(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, version: str
) -> None:
    fake_sst(tmp_path, said)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert sst.find().version == version
    fake_sst(tmp_path, "no such thing")
    with pytest.raises(Unsupported, match=r"says 'no such thing', expected .*install SST again"):
        sst.find()


def test_no_sst_no_element_and_another_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_sst(tmp_path, "SST-Core Version (3.1.4)")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(Unsupported, match=r"SST 3\.1\.4 is on PATH.*was built for SST"):
            open_small()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "empty"))
        with pytest.raises(Unsupported, match="no sst-config on PATH: install SST"):
            open_small()
    monkeypatch.setattr(sst, "LIBRARY", "libmissing.so")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(
            Unsupported, match=r"SST 3\.1\.4 is on PATH.*written for SST 15, 16, dev"
        ):
            open_small()
    with pytest.raises(Unsupported, match=r"built before SST was there.*install shmgemm again"):
        open_small()


def plain(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What `sst` says to a configuration without a session."""
    config = folder / "plain.py"
    config.write_text(text)
    line = [sst.find().executable, *options, str(config)]
    return subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


DEVICE = 'import sst\nsst.Component("d", "shmgemm.GemmDevice")\n'


def test_an_element_that_is_not_found(tmp_path: Path) -> None:
    done = plain(tmp_path, DEVICE)
    assert done.returncode != 0
    assert "shmgemm.GemmDevice" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", "no shmgemm.HostPort is on this rank and thread"),
        ('sst.Component("host", "shmgemm.HostPort")\n', "host: region "),
        (
            'sst.Component("host", "shmgemm.HostPort").addParam("region_fd", 0)\n',
            "host: region file of 0 bytes: at least 4 MiB",
        ),
    ],
)
def test_a_device_without_its_region_or_port(tmp_path: Path, host: str, message: str) -> None:
    done = plain(tmp_path, DEVICE + host, f"--add-lib-path={sst.library_folder()}")
    assert done.returncode > 0, "an error, no crash"
    assert re.search(message, done.stderr), done.stderr


def test_a_region_that_was_cut_short(tmp_path: Path) -> None:
    region = tmp_path / "region"
    region.write_bytes(b"SHMGEMM1" + bytes(4088))
    config = tmp_path / "plain.py"
    config.write_text(DEVICE + 'sst.Component("host", "shmgemm.HostPort").addParam("region_fd", 0)')
    line = [sst.find().executable, f"--add-lib-path={sst.library_folder()}", str(config)]
    with region.open("rb") as standard_input:
        done = subprocess.run(
            line, stdin=standard_input, capture_output=True, text=True, timeout=60
        )
    assert done.returncode > 0
    assert re.search("host: .*region", done.stderr), done.stderr


def test_two_sessions_cannot_share_a_queue_pair(tmp_path: Path) -> None:
    """A second process on the region of a session that is served: the session keeps its engine."""
    with open_small() as session:
        assert product_is_right(session)
        descriptor = f"/proc/{session.core.engine_pid}/fd/3"
        config = tmp_path / "plain.py"
        config.write_text(
            DEVICE + 'sst.Component("host", "shmgemm.HostPort").addParam("region_fd", 0)'
        )
        line = [sst.find().executable, f"--add-lib-path={sst.library_folder()}", str(config)]
        with open(descriptor, "r+b") as region:
            done = subprocess.run(line, stdin=region, capture_output=True, text=True, timeout=60)
        assert done.returncode > 0, done.stderr
        assert re.search("host: .*served by process", done.stderr), done.stderr
        assert product_is_right(session)
        assert session.stats()["engine_starts"] == 1


def test_region_is_the_sessions(tmp_path: Path) -> None:
    """Tensors outlive SST; a long product is cut short by close()."""
    with open_long() as session:
        long = LongProduct(session.core, 8)
        long.run()
        expected = long.c.copy()
        os.kill(session.core.engine_pid, signal.SIGKILL)
        wait_for(lambda: session.core.engine_pid == 0, "loss noticed")
        assert (long.c == expected).all()
