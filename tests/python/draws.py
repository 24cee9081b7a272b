"""Operands that the ops' tests draw: of any shape, type, strides and home."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st

import shmgemm

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INPUTS = (*FLOATS, torch.int8)
Values = Callable[[Sequence[int], torch.Generator], torch.Tensor]


def whole_numbers(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """So small that float32 sums them without error."""
    return torch.randint(-8, 9, tuple(shape), generator=generator)


def up_to_one(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator).clamp(-1, 1)


def strided(values: torch.Tensor, draw: Any) -> torch.Tensor:
    """The same values elsewhere: permuted, gapped, in the region or not."""
    order = draw(st.permutations(range(values.dim())))
    gaps = [values.shape[i] + draw(st.integers(0, 2)) for i in order]
    home = shmgemm.empty if draw(st.booleans()) else torch.empty
    memory = home(gaps, dtype=values.dtype).fill_(7)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    view = memory.permute(inverse)[tuple(slice(size) for size in values.shape)]
    return view.copy_(values)


@st.composite
def operands(
    draw: st.DrawFn, sizes: st.SearchStrategy[int], dtypes: Sequence[torch.dtype], values: Values
) -> tuple[torch.Tensor, torch.Tensor]:
    """A[..., M, K] and B[..., K, N] of one type, whose batch dimensions broadcast."""
    m, n, k = draw(sizes), draw(sizes), draw(sizes)
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    made = []
    for rows, columns in ((m, k), (k, n)):
        own = batch[draw(st.integers(0, len(batch))) :]
        own = [1 if draw(st.booleans()) else size for size in own]
        one = strided(values((*own, rows, columns), generator).to(dtype), draw)
        made.append(one.expand(2, *one.shape[1:]) if own == [1] == batch[-1:] else one)
    return made[0], made[1]
