"""The schemas of the torch ops. Records carry `scope` as module path and `label` as name."""

from __future__ import annotations

from typing import Any

import torch

library: Any = torch.library.Library("shmgemm", "DEF")  # type: ignore[no-untyped-call]
_tags = (torch.Tag.pt2_compliant_tag,)
library.define(
    "gemm(Tensor a, Tensor b, *, ScalarType? out_dtype=None, int sim_device=0,"
    ' str scope="", str label="gemm") -> Tensor',
    tags=_tags,
)
library.define(
    "linear(Tensor input, Tensor weight, Tensor? bias=None, *, int sim_device=0,"
    ' str scope="", str label="linear") -> Tensor',
    tags=_tags,
)

gemm_op: Any = torch.ops.shmgemm.gemm.default
linear_op: Any = torch.ops.shmgemm.linear.default
