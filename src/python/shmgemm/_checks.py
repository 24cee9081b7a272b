"""What a torch operand must be, and the sentence a user reads where it is not."""

from __future__ import annotations

import torch
from torch import Tensor

from shmgemm import _dtypes
from shmgemm._tensors import CODES, DTYPES
from shmgemm.errors import Unsupported


def _refuse_dtype(op: str, name: str, dtype: torch.dtype) -> None:
    hint = "; call .float() on it first" if dtype is torch.float64 else ""
    raise Unsupported(f"{op}: got {name} of {dtype}; expected {_dtypes.INPUT_NAMES}{hint}")


def _check_pair(op: str, a: Tensor, b: Tensor, a_name: str, b_name: str) -> int:
    for tensor, name in ((a, a_name), (b, b_name)):
        if tensor.device.type not in ("cpu", "meta"):
            raise Unsupported(
                f"{op}: got {name} on {tensor.device}; expected a CPU tensor (the device reads host"
                " memory): call .cpu() on it"
            )
        if CODES.get(tensor.dtype) not in _dtypes.INPUTS:
            _refuse_dtype(op, name, tensor.dtype)
    if a.dtype is not b.dtype:
        raise Unsupported(
            f"{op}: expected {a_name} and {b_name} of one dtype, got {a.dtype} and {b.dtype}"
        )
    return CODES[a.dtype]


def check_gemm(a: Tensor, b: Tensor, out_dtype: torch.dtype | None) -> int:
    """The output type's code; Unsupported where the operands cannot be multiplied."""
    for tensor, name in ((a, "a"), (b, "b")):
        if tensor.dim() < 2:
            raise Unsupported(
                f"shmgemm.gemm: got {name} of shape {tuple(tensor.shape)}; expected two dimensions"
                " at least: add one with .unsqueeze()"
            )
    code = _check_pair("shmgemm.gemm", a, b, "a", "b")
    wanted = None if out_dtype is None else CODES.get(out_dtype, 0)
    out_code = _dtypes.output_code(code, wanted)
    if out_code is None:
        possible = "int32" if code == _dtypes.INT8 else "float32, float16 or bfloat16"
        raise Unsupported(
            f"shmgemm.gemm: got out_dtype {out_dtype} for operands of {a.dtype};"
            f" expected {possible}"
        )
    return out_code


def check_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> int:
    op = "shmgemm.linear"
    if weight.dim() != 2 or input.dim() < 1:
        raise Unsupported(
            f"{op}: got input of shape {tuple(input.shape)} and weight of shape"
            f" {tuple(weight.shape)}; expected input[..., K] and weight[N, K]"
        )
    code = _check_pair(op, input, weight, "input", "weight")
    if input.shape[-1] != weight.shape[1]:
        raise Unsupported(
            f"{op}: input and weight cannot be multiplied: {tuple(input.shape)} and"
            f" {tuple(weight.shape)}; expected {weight.shape[1]} as input's last dimension,"
            f" got {input.shape[-1]}"
        )
    out_code = code if code != _dtypes.INT8 else _dtypes.INT32
    if bias is not None:
        if bias.dim() != 1 or bias.shape[0] != weight.shape[0]:
            raise Unsupported(
                f"{op}: got bias of shape {tuple(bias.shape)}; expected ({weight.shape[0]},)"
            )
        if bias.dtype is not DTYPES[out_code]:
            raise Unsupported(
                f"{op}: got bias of {bias.dtype}; expected {DTYPES[out_code]} for input of"
                f" {input.dtype}"
            )
    return out_code
