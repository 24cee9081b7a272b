"""A script written for an older device GEMM runs after its import line was changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

OLDER_SCRIPT = """
import torch
import torch.nn as nn
from device_backend import DeviceGEMM, DeviceLinear, device_gemm

torch.manual_seed(0)
A = torch.randn(4, 8, requires_grad=True)
B = torch.randn(8, 16, requires_grad=True)
for C in (device_gemm(A, B), DeviceGEMM.apply(A, B), DeviceGEMM()(A, B)):
    assert torch.allclose(C, A @ B, atol=1e-5)
C.sum().backward()
assert torch.allclose(A.grad, torch.ones(4, 16) @ B.T, atol=1e-5)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = DeviceLinear(8, 32)
        self.fc2 = DeviceLinear(32, 4, bias=False)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
x, y = torch.randn(16, 8), torch.randint(0, 4, (16,))
losses = []
for _ in range(10):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0]
print("ops on the device:", __import__("shmgemm").stats()["ops"])
"""


def test_without_torch_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n  import shmgemm.compat\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == (
        "shmgemm.compat needs torch, which is not installed: pip install torch\n"
    ), done.stderr


def test_only_the_import_line_changes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(OLDER_SCRIPT.replace("device_backend", "shmgemm.compat"))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "SHMGEMM_STRICT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 3 products, 2 gradients; 10 steps of 2 forward products and 3 gradients (none for the input)
    assert done.stdout.strip() == "ops on the device: 55"
