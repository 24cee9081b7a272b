"""Several engine processes behind one session: the same times and bits, and what cannot be."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmgemm
from shmgemm.errors import Unsupported
from shmgemm.session import Session

FLOAT32 = 1
HARDWARE = {"model": "scalesim_ws", "rows": 8, "cols": 4, "clock": "1GHz"}


def opened(**given: Any) -> Session:
    return shmgemm.open(hardware=HARDWARE, region="16MiB", strict=True, **given)


def product(session: Session, device: int, m: int, n: int, k: int) -> tuple[Any, np.ndarray]:
    random = np.random.default_rng(m * 10_000 + n * 100 + k)
    a = random.standard_normal((m, k), dtype=np.float32)
    b = random.standard_normal((k, n), dtype=np.float32)
    c = np.full((m, n), np.nan, dtype=np.float32)
    views = [(x.ctypes.data, 0, x.shape[1], 1) for x in (a, b, c)]
    done = session.core.gemm("gemm", m, n, k, 1, FLOAT32, FLOAT32, *views, device=device)
    assert np.allclose(c, a.astype(np.float64) @ b.astype(np.float64), atol=1e-4)
    return done, c


@pytest.fixture(scope="module")
def three_and_one() -> Iterator[tuple[Session, Session]]:
    """The same three devices behind three processes and behind one."""
    with opened(devices=3, processes=3) as three, opened(devices=3) as one:
        yield three, one


_SIZE = st.integers(1, 40)
_OP = st.one_of(
    st.tuples(st.just("gemm"), st.integers(0, 2), _SIZE, _SIZE, _SIZE),
    st.tuples(st.just("noop"), st.integers(0, 2)),
    st.tuples(st.just("reset"), st.integers(0, 2)),
    st.tuples(st.just("flush")),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(script=st.lists(_OP, max_size=12))
def test_blocking_ops_have_the_times_and_bits_of_one_process(
    three_and_one: tuple[Session, Session], script: list[tuple[Any, ...]]
) -> None:
    outcomes = []
    for session in three_and_one:
        seen: list[Any] = []
        for kind, *arguments in script:
            if kind == "gemm":
                done, values = product(session, *arguments)
                seen.append((done.device, done.start_cycles, done.end_cycles, values.tobytes()))
            elif kind == "reset":
                session.reset(*arguments)
            else:
                done = getattr(session.core, kind)(*arguments)
                seen.append((done.start_cycles, done.end_cycles))
        seen.append([session.info(device)["now_cycles"] for device in range(3)])
        outcomes.append(seen)
    assert outcomes[0] == outcomes[1]


def test_the_session_knows_its_engines() -> None:
    with opened(devices=5, processes=2) as session:
        first, second = session.engine_pids
        assert first == session.core.engine_pid and first != second
        assert f"engine pids {first}, {second}" in repr(session)
        assert [session.info(device)["devices"] for device in range(5)] == [5] * 5
        for device in range(5):
            done, _ = product(session, device, 4, 4, 4)
            assert done.device == device
            assert session.info(device)["ops"] == 1
        stats = session.stats()
        assert (stats["ops"], stats["engine_starts"]) == (5, 2)
    assert session.engine_pids == [0, 0]


def test_the_cpus_are_shared_unless_threads_says_how_many() -> None:
    cpus = len(os.sched_getaffinity(0))
    with opened(devices=2, processes=2) as session:
        assert session.info(1)["threads"] == max(1, cpus // 2)
    with opened(devices=2, processes=2, threads=3) as session:
        assert session.info(1)["threads"] == 3


def test_layers_on_devices_of_several_engines() -> None:
    torch = pytest.importorskip("torch")
    with opened(devices=3, processes=3), shmgemm.profile() as prof:
        x = torch.randn(5, 16)
        for device in range(3):
            layer = shmgemm.DeviceLinear(16, 8, sim_device=device)
            expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
            assert torch.allclose(layer(x), expected, atol=1e-5)
    assert [record.device for record in prof.records] == [0, 1, 2]
    starts = [(record.start_cycles, record.end_cycles) for record in prof.records]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(starts))


def test_futures_and_batches_on_devices_of_several_engines() -> None:
    torch = pytest.importorskip("torch")
    with opened(devices=2, processes=2):
        a, b = torch.randn(9, 7), torch.randn(7, 5)
        futures = [shmgemm.gemm_async(a, b) for _ in range(3)]
        for future in futures:
            assert torch.allclose(future.result(), a @ b, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"devices": 2, "processes": 3}, r"argument processes = 3, devices = 2: expected at least"),
        ({"devices": 2, "processes": 2, "guest": True}, "a guest reaches one engine"),
    ],
)
def test_what_cannot_be_says_so(given: dict[str, Any], says: str) -> None:
    with pytest.raises(Unsupported, match=says):
        opened(**given)


@pytest.mark.parametrize("wrong", [0, 9, 1.5, "two"])
def test_a_number_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"argument processes = .*a whole number from 1 to 8"):
        opened(devices=9, processes=wrong)


def test_a_server_has_one_engine() -> None:
    with pytest.raises(Unsupported, match="one engine behind it"):
        shmgemm.connect("127.0.0.1:1", processes=2)


def test_environment_and_file_say_how_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHMGEMM_PROCESSES", "2")
    with opened(devices=2) as session:
        assert len(session.engine_pids) == 2
    with pytest.raises(Unsupported, match="environment SHMGEMM_PROCESSES = 2, devices = 1"):
        opened()
    monkeypatch.delenv("SHMGEMM_PROCESSES")
    file = tmp_path / "shmgemm.toml"
    file.write_text("[session]\ndevices = 3\nprocesses = 3\n")
    monkeypatch.setenv("SHMGEMM_CONFIG", str(file))
    with opened() as session:
        assert len(session.engine_pids) == 3


def test_the_command_line_says_how_many(tmp_path: Path) -> None:
    import subprocess

    script = tmp_path / "pids.py"
    script.write_text("import shmgemm; print(len(shmgemm.current().engine_pids))\n")
    words = [sys.executable, "-m", "shmgemm", "run", "--devices", "2", "--processes", "2"]
    done = subprocess.run(
        [*words, str(script)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.stdout.split()[:1] == ["2"] or "\n2\n" in done.stdout, done.stdout + done.stderr
    limits = subprocess.run(
        [sys.executable, "-m", "shmgemm", "info", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert '"processes": 8' in json.dumps(json.loads(limits.stdout))
