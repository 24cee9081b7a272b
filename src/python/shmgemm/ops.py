"""The torch ops `shmgemm::gemm` and `shmgemm::linear`, put together, and the functions users call.

Where the C++ extension was built it takes over the fast paths of kernel and autograd; the Python
ones below stay its slow paths. SHMGEMM_TORCH_EXT=0 keeps it out.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch
from torch import Tensor

from shmgemm import _arrays, _gradients, _kernels, _transforms
from shmgemm._library import gemm_op, library, linear_op


def gemm(a: Any, b: Any, *, out_dtype: Any = None, sim_device: int = 0) -> Any:
    """A[..., M, K] @ B[..., K, N] on the simulated device, as torch.matmul from two dimensions on.

    float32, float16, bfloat16 (summed in float32, rounded once to `out_dtype`, by default A's type)
    or int8 (to int32). Differentiable. NumPy arrays give a NumPy array. Raises Unsupported, a
    TypeError and ValueError, for shapes and types that cannot be multiplied.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return gemm_op(a, b, out_dtype=out_dtype, sim_device=sim_device)
    return _arrays.gemm(a, b, out_dtype=out_dtype, sim_device=sim_device)


def linear(input: Any, weight: Any, bias: Any = None, *, sim_device: int = 0) -> Any:
    """input[..., K] @ weight[N, K].T + bias[N] on the simulated device, as F.linear."""
    if isinstance(input, Tensor) and isinstance(weight, Tensor):
        return linear_op(input, weight, bias, sim_device=sim_device)
    return _arrays.linear(input, weight, bias, sim_device=sim_device)


def _load_extension() -> tuple[Any, str]:
    """The C++ extension, or None and why not."""
    if os.environ.get("SHMGEMM_TORCH_EXT") == "0":
        return None, "SHMGEMM_TORCH_EXT=0"
    try:
        extension: Any = importlib.import_module("shmgemm._torch")
    except ImportError as error:
        return None, str(error)
    if torch.__version__ != extension.TORCH_VERSION:
        return None, f"built for torch {extension.TORCH_VERSION}, this is {torch.__version__}"
    return extension, ""


_extension, WHY_PYTHON = _load_extension()
IMPLEMENTATION = "extension" if _extension else "python"


def _register() -> None:
    rules: Any = torch.library
    for name, fake, vmap, autocast in (
        ("gemm", _transforms.gemm_fake, _transforms.gemm_vmap, _transforms.gemm_autocast),
        ("linear", _transforms.linear_fake, _transforms.linear_vmap, _transforms.linear_autocast),
    ):
        library.impl(name, autocast, "AutocastCPU")
        for key in ("CUDA", "XPU", "MPS", "SparseCPU", "SparseCsrCPU", "MkldnnCPU"):
            library.impl(name, _kernels.not_here, key)
        rules.register_fake(f"shmgemm::{name}", fake, lib=library)
        rules.register_vmap(f"shmgemm::{name}", vmap, lib=library)
    if _extension:
        _extension.register_kernels()
        return
    library.impl("gemm", _kernels.gemm_cpu, "CPU")
    library.impl("linear", _kernels.linear_cpu, "CPU")
    library.impl("gemm", _gradients.gemm_autograd, "Autograd", with_keyset=True)
    library.impl("linear", _gradients.linear_autograd, "Autograd", with_keyset=True)


_register()
