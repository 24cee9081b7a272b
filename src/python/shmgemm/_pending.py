"""Tensors whose values are still on their way from the device: what pipelined layers return.

Modelled on torch.distributed's AsyncCollectiveTensor: views of one pass without waiting, a
pipelined layer takes one as its input and lets the device wait, and any other op waits for the
values first. Where a model leaves them alone until it needs them, its branches overlap.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from shmgemm import _sending, ops
from shmgemm._library import linear_op
from shmgemm.futures import Future, Sent

_c: Any = torch._C
_views: dict[Any, bool] = {}


class PendingTensor(Tensor):
    """A tensor, or a view of one, that a product under way will fill."""

    _memory: Tensor
    _future: Future[Tensor]

    @staticmethod
    def __new__(cls, memory: Tensor, future: Future[Tensor]) -> PendingTensor:
        self: PendingTensor = Tensor._make_wrapper_subclass(
            cls,
            memory.size(),
            strides=memory.stride(),
            storage_offset=memory.storage_offset(),
            dtype=memory.dtype,
            layout=memory.layout,
            device=memory.device,
        )
        self._memory = memory
        self._future = future
        return self

    def settled(self) -> Tensor:
        """The plain tensor, once its values are there."""
        filled = self._future.result()
        whole = self._future.memory
        if filled is not whole:  # computed on the CPU after all
            with torch.no_grad():
                whole.copy_(filled)
        return self._memory

    def unsettled(self) -> tuple[Tensor, Sent | None]:
        """Its memory, and what has to end before that may be read (None: nothing)."""
        return self._memory, self._future.sent

    # Without a storage of its own, torch would find nothing there.
    def numpy(self, *, force: bool = False) -> Any:
        return self.settled().numpy(force=force)

    def tolist(self) -> Any:
        return self.settled().tolist()

    def data_ptr(self) -> int:
        return self.settled().data_ptr()

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return repr(self.settled())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.settled().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.settled().__deepcopy__(memo)  # type: ignore[no-untyped-call,no-any-return]

    __torch_function__ = _c._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, PendingTensor) and _is_view(func):
            future = first._future
            result = func(first._memory, *args[1:], **kwargs)
            return tree_map_only(Tensor, lambda view: PendingTensor(view, future), result)
        return func(*settle(args), **settle(kwargs))


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None, sim_device: int, scope: str
) -> Tensor:
    """F.linear on the device, without waiting where neither autograd nor a transform is asked."""
    pending = input if isinstance(input, PendingTensor) else None
    memory, after = pending.unsettled() if pending is not None else (input, None)
    if not _sending.is_plain(memory, weight, bias) or _sending.needs_grad(memory, weight, bias):
        result: Tensor = linear_op(settle(input), weight, bias, sim_device=sim_device, scope=scope)
        return result
    if pending is not None and (after is None or after.done()):
        memory, after = pending.settled(), None
    future = _sending.send_linear(
        ops.extension(), memory, weight, bias, sim_device, scope, after, partial(settle, input)
    )
    return future.result() if future.sent is None else PendingTensor(future.memory, future)


def _is_view(func: Any) -> bool:
    known = _views.get(func)
    if known is None:
        arguments = func._schema.arguments
        alias = arguments[0].alias_info if arguments else None
        known = _views[func] = alias is not None and not alias.is_write
    return known


def settle(values: Any) -> Any:
    """The same structure with every pending tensor waited for."""
    return tree_map_only(PendingTensor, PendingTensor.settled, values)
