"""Seconds from a fresh interpreter to the first verified product.

The bench runs `python -m shmgemm.bench.cold_start`; `import torch` is timed apart. Prints one JSON
object.
"""

from __future__ import annotations

import json
import time


def main() -> None:
    start = time.perf_counter()
    import torch

    with_torch = time.perf_counter()
    import shmgemm

    a, b = torch.randn(4, 8), torch.randn(8, 16)
    with shmgemm.open(strict=True) as session:
        product = shmgemm.gemm(a, b)
        torch.testing.assert_close(product.double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)
        cycles = session.stats()["cycles"]
        end = time.perf_counter()
    if cycles <= 0:
        raise SystemExit("the first product took no simulated cycles")
    print(json.dumps({"torch_s": with_torch - start, "shmgemm_s": end - with_torch}))


if __name__ == "__main__":
    main()
