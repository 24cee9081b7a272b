"""Several products of torch tensors, of any shapes, in one submission.

One wake-up and one flush for all of them, where all are plain (see _sending). Else they are the
ops' own, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from shmgemm import _core, _gradients, _kernels
from shmgemm._checks import check_gemm, check_linear
from shmgemm._dtypes import check_sim_device
from shmgemm._library import gemm_op, linear_op
from shmgemm._sending import gemm_after_error, is_plain, linear_after_error, needs_grad
from shmgemm.errors import ShmgemmError


class Gemm(NamedTuple):
    a: Tensor
    b: Tensor

    def check(self) -> None:
        check_gemm(*self, None)

    def alone(self, sim_device: int) -> Tensor:
        result: Tensor = gemm_op(*self, sim_device=sim_device)
        return result

    def calls(self, session: _core.Session, sim_device: int) -> _kernels.Calls:
        return _kernels.gemm_calls(session, *self, None, sim_device)

    def after_error(self, error: ShmgemmError) -> Tensor:
        return gemm_after_error(error, *self, None)

    def attach(self, sim_device: int, value: Tensor) -> Tensor:
        return _gradients.attach_gemm(*self, None, sim_device, value)


class Linear(NamedTuple):
    input: Tensor
    weight: Tensor
    bias: Tensor | None

    def check(self) -> None:
        check_linear(*self)

    def alone(self, sim_device: int) -> Tensor:
        result: Tensor = linear_op(*self, sim_device=sim_device)
        return result

    def calls(self, session: _core.Session, sim_device: int) -> _kernels.Calls:
        return _kernels.linear_calls(session, *self, sim_device)

    def after_error(self, error: ShmgemmError) -> Tensor:
        return linear_after_error(error, *self)

    def attach(self, sim_device: int, value: Tensor) -> Tensor:
        return _gradients.attach_linear(*self, sim_device, "", value)


Product: TypeAlias = Gemm | Linear


def batch(extension: Any, products: Sequence[Product], sim_device: int) -> list[Tensor]:
    check_sim_device(sim_device)
    tensors = [tensor for product in products for tensor in product]
    if not is_plain(*tensors):
        for product in products:  # before the first is sent
            product.check()
        return [product.alone(sim_device) for product in products]
    try:
        results = _send(extension, products, sim_device)
    except ShmgemmError as error:
        results = [product.after_error(error) for product in products]
    if not needs_grad(*tensors):
        return results
    return [
        product.attach(sim_device, result) if needs_grad(*product) else result
        for product, result in zip(products, results, strict=True)
    ]


def _send(extension: Any, products: Sequence[Product], sim_device: int) -> list[Tensor]:
    session = _core.current_session()
    if extension is not None:
        results: list[Tensor] | None = extension.batch(products, sim_device)
        if results is not None:
            return results
    for product in products:  # before the first is sent
        product.check()
    each = [product.calls(session, sim_device) for product in products]
    together = [call for product in each for call in product.calls]
    if together:
        session.gemm_batch(together)
    return [product.result for product in each]
