"""The MiniLM sentence encoder, offloaded, beside itself on plain torch.

The bench runs `python -m shmgemm.bench.minilm` for each number of threads, because torch keeps the
threads it once had. Prints one JSON object of [p50, p99] in milliseconds.
"""

from __future__ import annotations

import argparse
import json

import torch

import shmgemm

from ..cli import _minilm
from .harness import Timing, interleaved


def compare(threads: int, rounds: int, samples: int) -> dict[str, Timing]:
    """Seconds that five sentences take through both models by turns, checked against each other."""
    torch.set_num_threads(threads)
    folder = _minilm.model_folder()
    tokenizer, plain = _minilm.load(folder)
    _, offloaded = _minilm.load(folder)
    inputs = tokenizer(list(_minilm.SENTENCES), padding=True, return_tensors="pt")
    with shmgemm.open(strict=True, threads=threads), torch.inference_mode():
        shmgemm.offload_(offloaded)
        theirs, ours = (model(**inputs).last_hidden_state for model in (plain, offloaded))
        difference = float((ours - theirs).abs().max())
        if not difference <= _minilm.TOLERANCE:
            raise SystemExit(f"the offloaded model differs from plain torch by {difference:.2e}")
        calls = {"ours": lambda: offloaded(**inputs), "plain": lambda: plain(**inputs)}
        return interleaved(calls, rounds=rounds, samples=samples, pause_s=0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--threads", "--rounds", "--samples"):
        parser.add_argument(name, type=int, required=True)
    args = parser.parse_args()
    timings = compare(args.threads, args.rounds, args.samples)
    print(json.dumps({name: [t.p50 * 1e3, t.p99 * 1e3] for name, t in timings.items()}))


if __name__ == "__main__":
    main()
