"""What a program sees when its engine dies: kills it in the middle of a 4096^3 product.

The loss is raised within 100 ms, tensors in the region survive, the next product starts a fresh
engine and is right, and in the end nothing is left behind.
"""

import os
import signal
import threading
import time
from pathlib import Path

import torch

import shmgemm

SIZE = 4096
LIMIT_S = 0.1
SHARED_MEMORY = Path("/dev/shm")


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Killer(threading.Thread):
    """Kills a process once it has computed for a while; `killed_at` is when."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid
        self.killed_at = 0.0

    def run(self) -> None:
        start = cpu_seconds(self.pid)
        while cpu_seconds(self.pid) < start + 0.1:
            time.sleep(0.005)
        self.killed_at = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)


def main() -> None:
    before = set(os.listdir(SHARED_MEMORY))
    with shmgemm.open(strict=True) as session:
        a, b = shmgemm.empty(SIZE, SIZE), shmgemm.empty(SIZE, SIZE)
        a.normal_()
        b.normal_()
        corner = a[:8].clone()

        pids = [session.core.engine_pid]
        killer = Killer(pids[0])
        killer.start()
        try:
            shmgemm.gemm(a, b)
        except shmgemm.DeviceLost as error:
            after = time.monotonic() - killer.killed_at
            print(f"{1e3 * after:.1f} ms after the kill: DeviceLost: {error}")
        else:
            raise AssertionError("the product ended before its engine was killed")
        killer.join()
        assert after <= LIMIT_S, after
        assert torch.equal(a[:8], corner), "a tensor in the region changed"

        c = shmgemm.gemm(a[:64], b)
        pids.append(session.core.engine_pid)
        torch.testing.assert_close(c.double(), a[:64].double() @ b.double(), rtol=1e-3, atol=1e-3)
        assert pids[1] not in (0, pids[0])
        print(f"the next product is right, on a fresh engine (pid {pids[0]} -> {pids[1]})")

    for pid in pids:
        assert not Path(f"/proc/{pid}").exists(), f"process {pid} is still there"
    left = set(os.listdir(SHARED_MEMORY)) - before
    assert not left, left
    print("nothing left in /dev/shm, no process left")


if __name__ == "__main__":
    main()
