"""The names that older device-GEMM scripts import; such a script changes its import line and runs.

from shmgemm.compat import DeviceGEMM, DeviceLinear, device_batch_gemm, device_gemm
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

try:
    from torch import Tensor
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "shmgemm.compat needs torch, which is not installed: pip install torch"
    ) from None

from shmgemm._batch import Gemm, Linear, Product, batch
from shmgemm.errors import Unsupported
from shmgemm.nn import DeviceLinear
from shmgemm.ops import extension, gemm

__all__ = ["DeviceGEMM", "DeviceLinear", "device_batch_gemm", "device_gemm"]

_OPERANDS = {"GEMM": ("A", "B"), "LINEAR": ("input", "weight")}


def device_gemm(a: Tensor, b: Tensor) -> Tensor:
    """A[M, K] @ B[K, N] on the simulated device, differentiable."""
    result: Tensor = gemm(a, b)
    return result


class DeviceGEMM:
    """The product as older scripts wrote it: `DeviceGEMM.apply(A, B)`, or `DeviceGEMM()(A, B)`."""

    @staticmethod
    def apply(a: Tensor, b: Tensor) -> Tensor:
        return device_gemm(a, b)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return device_gemm(a, b)


def device_batch_gemm(products: Iterable[Mapping[str, Any]]) -> list[Tensor]:
    """Products of any shapes in one submission, as shmgemm.batch; results in the same order.

    Each is {"type": "GEMM", "A": A[..., M, K], "B": B[..., K, N]} or {"type": "LINEAR", "input":
    input[..., K], "weight": weight[N, K], "bias": bias[N]}, the bias or None being optional.
    Differentiable. Raises Unsupported, with the number of the product and the key, before anything
    is sent.
    """
    return batch(extension(), [_checked(i, product) for i, product in enumerate(products)], 0)


def _checked(index: int, product: Mapping[str, Any]) -> Product:
    where = f"device_batch_gemm: product {index}"
    if not isinstance(product, Mapping):
        raise Unsupported(f"{where}: got {type(product).__name__}; expected a dict")
    kind = product.get("type")
    if kind not in ("GEMM", "LINEAR"):
        raise Unsupported(f"{where}, key 'type': got {kind!r}; expected 'GEMM' or 'LINEAR'")
    names = _OPERANDS[kind]
    for key in product:
        if key not in ("type", *names) and (kind, key) != ("LINEAR", "bias"):
            raise Unsupported(f"{where}, key {key!r}: {kind} has {', '.join(map(repr, names))}")
    for key in names:
        if not isinstance(product.get(key), Tensor):
            got = type(product[key]).__name__ if key in product else "nothing"
            raise Unsupported(f"{where}, key {key!r}: got {got}; expected a tensor")
    bias = product.get("bias")
    if bias is not None and not isinstance(bias, Tensor):
        raise Unsupported(f"{where}, key 'bias': got {type(bias).__name__}; expected a tensor")
    first, second = (product[key] for key in names)
    checked = Gemm(first, second) if kind == "GEMM" else Linear(first, second, bias)
    try:
        checked.check()
    except Unsupported as error:
        raise Unsupported(f"{where}: {error}") from None
    return checked
