"""Two SST processes behind one session, a device in each."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import FLOAT32, is_gone, open_small

from shmgemm import DeviceLost, abi, sst
from shmgemm.errors import Unsupported
from shmgemm.session import Session


def product(session: Session, device: int, size: int) -> tuple[int, int, bytes]:
    random = np.random.default_rng(size)
    a = random.standard_normal((size, size), dtype=np.float32)
    c = np.zeros((size, size), dtype=np.float32)
    views: list[Any] = [(x.ctypes.data, 0, size, 1) for x in (a, a, c)]
    done = session.core.gemm("gemm", size, size, size, 1, FLOAT32, FLOAT32, *views, device=device)
    assert np.allclose(c, a.astype(np.float64) @ a.astype(np.float64), atol=1e-3)
    return done.start_cycles, done.end_cycles, c.tobytes()


SCRIPT = [(0, 20), (1, 33), (1, 8), (0, 50), (1, 41), (0, 9)]


def test_times_and_bits_are_those_of_one_simulation_and_of_the_embedded_engine() -> None:
    seen = []
    for given in ({"processes": 2}, {}, {"engine": "embedded", "processes": 2}):
        with open_small(devices=2, **given) as session:
            seen.append([product(session, device, size) for device, size in SCRIPT])
            assert session.info(1)["devices"] == 2
    assert seen[0] == seen[1] == seen[2]


def test_one_dies_and_the_other_goes_on() -> None:
    with open_small(devices=2, processes=2) as session:
        first, second = session.engine_pids
        _, end, _ = product(session, 1, 30)
        os.kill(second, signal.SIGSTOP)
        number = session.core.submit_raw(bytes(abi.Command(op=abi.Op.NOOP, device=1)))
        os.kill(second, signal.SIGKILL)
        with pytest.raises(DeviceLost, match=rf"the engine of device 1 \(pid {second}\)"):
            session.core.wait_raw(number)
        assert is_gone(second)
        product(session, 0, 30)
        assert product(session, 1, 30)[0] >= end
        assert session.engine_pids[0] == first
        assert session.engine_pids[1] not in (0, second)


def test_a_configuration_of_ones_own_has_one_process(tmp_path: Path) -> None:
    config = tmp_path / "system.py"
    config.write_text("")
    with pytest.raises(Unsupported, match="the devices of one simulation"):
        open_small(devices=2, processes=2, sst_config=config)
    assert sst.built_for() is not None
