"""Tensors whose values are still on their way from the device: what pipelined layers return.

Modelled on torch.distributed's AsyncCollectiveTensor: views of one pass without waiting, a
pipelined layer takes one as its input and lets the device wait, and any other op waits for the
values first. Where a model leaves them alone until it needs them, its branches overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_map_only

from shmgemm import _sending, ops
from shmgemm._library import linear_op
from shmgemm.futures import Future, Sent, length_of

_c: Any = torch._C
_views: dict[Any, bool] = {}
_LONGEST_CHAIN = 64  # of products that nobody has waited for: where one fails all behind it follow


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
        self._future.result()
        return self._memory

    def unsettled(self) -> tuple[Tensor, Sent | None]:
        """Its memory, and what has to end before that may be read (None: nothing)."""
        return self._memory, self._future.sent

    def _change_shape(self, func: Any, args: Any, kwargs: Any) -> PendingTensor:
        """What unsqueeze_ and the like do: to this tensor, not to others of the same memory."""
        changed = self.settled().detach()
        func(changed, *args, **kwargs)
        with no_dispatch():
            func(self, *args, **kwargs)
        self._memory = changed
        return self

    __torch_function__ = _c._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, PendingTensor):
            if _is_view(func):
                future = first._future
                result = func(first._memory, *args[1:], **kwargs)
                return tree_map_only(Tensor, lambda view: PendingTensor(view, future), result)
            if torch.Tag.inplace_view in func.tags:
                return first._change_shape(func, settle(args[1:]), settle(kwargs))
        return func(*settle(args), **settle(kwargs))


def _waiting(name: str) -> Callable[..., Any]:
    def method(self: PendingTensor, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.settled(), name)(*args, **kwargs)

    return method


# What torch does past its dispatcher: without a storage of its own it would find nothing there.
for _name in (
    *("numpy", "tolist", "data_ptr", "untyped_storage", "storage", "share_memory_"),
    *("__dlpack__", "__dlpack_device__", "__format__", "__repr__"),
    *("__reduce_ex__", "__deepcopy__"),
):
    setattr(PendingTensor, _name, _waiting(_name))


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None, sim_device: int, scope: str
) -> Tensor:
    """F.linear on the device, without waiting where neither autograd nor a transform is asked."""
    pending = input if isinstance(input, PendingTensor) else None
    memory, after = pending.unsettled() if pending is not None else (input, None)
    if not _sending.is_plain(memory, weight, bias) or _sending.needs_grad(memory, weight, bias):
        result: Tensor = linear_op(settle(input), weight, bias, sim_device=sim_device, scope=scope)
        return result
    if pending is not None and (after is None or length_of(after) >= _LONGEST_CHAIN):
        memory, after = pending.settled(), None
    future = _sending.send_linear(
        ops.extension(), memory, weight, bias, sim_device, scope, after, partial(settle, input)
    )
    if future.sent is None:
        return future.result()
    return PendingTensor(future.memory, future.then(partial(_fill, future.memory)))


def _fill(memory: Tensor, value: Tensor) -> Tensor:
    """Where views look for the values, also where the CPU computed them after all."""
    if value is not memory:
        with torch.inference_mode():  # it may have been made under it
            memory.copy_(value)
    return memory


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
