"""Two tensors in the shared region, one product: no matrix byte is copied, and the cycles are those
of the closed form F·P - 1 of a weight-stationary array (F folds of P cycles each).
"""

import torch

import shmgemm

M, N, K = 100, 200, 300
ROWS, COLS = 32, 16


def main() -> None:
    with (
        shmgemm.open(
            hardware={"model": "scalesim_ws", "rows": ROWS, "cols": COLS, "clock": "1GHz"},
            strict=True,
        ),
        shmgemm.profile() as prof,
    ):
        a, b = shmgemm.empty(M, K), shmgemm.empty(K, N)
        a.normal_()
        b.normal_()
        c = shmgemm.gemm(a, b)

        folds = -(-K // ROWS) * -(-N // COLS)
        cycles_per_fold = 2 * ROWS + COLS + M - 2
        (op,) = prof.records
        assert op.bytes_copied == 0 and shmgemm.stats()["bytes_copied"] == 0
        assert op.cycles == folds * cycles_per_fold - 1, (op.cycles, folds, cycles_per_fold)
        torch.testing.assert_close(c.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)

    print(prof.table(by="op"))
    print(f"{folds} folds of {cycles_per_fold} cycles - 1 = {op.cycles:,} cycles, 0 bytes copied")


if __name__ == "__main__":
    main()
