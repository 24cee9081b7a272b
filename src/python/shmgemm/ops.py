"""The torch ops `shmgemm::gemm` and `shmgemm::linear`, put together, and the functions users call.

Where the C++ extension was built it takes over the fast paths of kernel and autograd; the Python
ones below stay its slow paths. SHMGEMM_TORCH_EXT=0 keeps it out.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from shmgemm import _arrays, _batch, _gradients, _kernels, _sending, _transforms
from shmgemm._library import gemm_op, library, linear_op
from shmgemm.futures import Future


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


def gemm_async(a: Any, b: Any, *, out_dtype: Any = None, sim_device: int = 0) -> Future[Any]:
    """As `gemm`, without waiting: a Future of A[..., M, K] @ B[..., K, N].

    It goes to this thread's stream (shmgemm.stream). The operands must not change until the future
    is done. Differentiable. Shapes and types that cannot be multiplied raise Unsupported here, what
    happens on the device is raised (or falls back to the CPU) by `result()`.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _sending.gemm_async(_extension, a, b, out_dtype, sim_device)
    return _arrays.gemm_async(a, b, out_dtype=out_dtype, sim_device=sim_device)


def linear_async(input: Any, weight: Any, bias: Any = None, *, sim_device: int = 0) -> Future[Any]:
    """As `linear`, without waiting: a Future of input[..., K] @ weight[N, K].T + bias[N]."""
    if isinstance(input, Tensor) and isinstance(weight, Tensor):
        return _sending.linear_async(_extension, input, weight, bias, sim_device)
    return _arrays.linear_async(input, weight, bias, sim_device=sim_device)


def batch(products: Iterable[tuple[Any, Any]], *, sim_device: int = 0) -> list[Any]:
    """The products of (A, B) pairs of any shapes, in one submission: [A @ B, ...].

    One wake-up and one flush for all of them. Operands and errors as for `gemm`.
    """
    pairs = [(a, b) for a, b in products]
    if all(isinstance(x, Tensor) for pair in pairs for x in pair):
        return _batch.batch(_extension, [_batch.Gemm(a, b) for a, b in pairs], sim_device)
    return _arrays.batch(pairs, sim_device=sim_device)


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


def extension() -> Any:
    """The compiled module, or None where the ops are Python's."""
    return _extension


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
