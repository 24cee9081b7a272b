"""A small shmgemm.gemm beside torch.mm.

The bench runs `python -m shmgemm.bench.small_gemm`, a process of its own, because the C++ op or the
Python one is chosen by SHMGEMM_TORCH_EXT before torch is imported. Prints one JSON object of
[p50, p99] in microseconds.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

import shmgemm

from .harness import interleaved


def in_region(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the region."""
    copy = shmgemm.empty(*tensor.shape, dtype=tensor.dtype)
    copy.copy_(tensor)
    return copy


def calls(m: int, k: int, n: int) -> dict[str, Any]:
    """Products without and with autograd recording, ours and torch's, checked against float64."""
    a, b = (in_region(torch.randn(*shape)) for shape in ((m, k), (k, n)))
    a_grad, b_grad = (in_region(tensor).requires_grad_() for tensor in (a, b))
    plain = [tensor.detach().clone() for tensor in (a, b)]
    plain_grad = [tensor.detach().clone().requires_grad_() for tensor in (a, b)]
    exact = a.double() @ b.double()
    for result in (shmgemm.gemm(a, b), shmgemm.gemm(a_grad, b_grad)):
        torch.testing.assert_close(result.detach().double(), exact, rtol=1e-4, atol=1e-4)
    return {
        "gemm": lambda: shmgemm.gemm(a, b),
        "mm": lambda: torch.mm(*plain),
        "gemm_grad": lambda: shmgemm.gemm(a_grad, b_grad),
        "mm_grad": lambda: torch.mm(*plain_grad),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    args = parser.parse_args()
    with shmgemm.open(strict=True):
        tiny, small = calls(4, 8, 16), calls(32, 128, 256)
        chosen = {**tiny, "gemm_32": small["gemm"]}
        timings = interleaved(chosen, rounds=args.rounds, samples=args.samples, warm=50)
    print(json.dumps({name: [t.p50 * 1e6, t.p99 * 1e6] for name, t in timings.items()}))


if __name__ == "__main__":
    main()
