"""The names that older device-GEMM scripts import; such a script changes its import line and runs.

from shmgemm.compat import DeviceGEMM, DeviceLinear, device_gemm
"""

from __future__ import annotations

try:
    from torch import Tensor
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "shmgemm.compat needs torch, which is not installed: pip install torch"
    ) from None

from shmgemm.nn import DeviceLinear
from shmgemm.ops import gemm

__all__ = ["DeviceGEMM", "DeviceLinear", "device_gemm"]


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
