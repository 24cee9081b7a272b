"""`shmgemm doctor --run --guest`: a guest boots, each party has a line, the direct path agrees."""

from __future__ import annotations

import json

import pytest

from shmgemm import _guest_path, guest
from shmgemm.cli import main

READY_S = 300.0  # generous: the machine may be busy


def test_a_product_through_a_guest_is_the_direct_paths(
    image: guest.Image, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guest_path, "_READY_TIMEOUT_S", READY_S)
    assert main(["doctor", "--run", "--guest", "--hardware", "tiny_4x4_ws", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert image.kernel_build.name in found["guest image"]["text"]
    assert image.plugin.parent.name in found["QEMU plug-in"]["text"]
    parties = {party["name"]: party for party in report["parties"]}
    assert list(parties) == ["client", "device server", "driver", "QEMU's device", "engine"]
    assert all(party["ok"] for party in parties.values())
    assert "/dev/sst0" in parties["driver"]["text"]
    first, second = report["trials"]
    assert first["as_direct"] and second["as_direct"]
    assert first["cycles"] == 2 * 4 * (2 * 4 + 4 + 4 - 2) - 1  # SCALE-Sim's folds on a 4 x 4 array
    assert second["cycles"] == 32 * 64 * (2 * 4 + 4 + 32 - 2) - 1
