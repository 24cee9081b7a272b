"""A linear layer over several simulated devices: tensor parallel.

With `dim` 0 each device has some of the output features (rows of the weight) and writes its columns
of the result in place. With `dim` 1 each has some of the input features and computes a partial
result in float32; when all are there each device sums its share of them (a reduce-scatter), as a
product with a row of ones that is timed like any other. A network between the devices is not
modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo  # torch.compiler.disable imports all of dynamo
from torch.utils._python_dispatch import _disable_current_modes

from shmgemm import _core, _dtypes, _fallback, _kernels, _pending, _sending, _tensors, opening
from shmgemm import nn as device_nn
from shmgemm._checks import check_linear
from shmgemm._dtypes import check_sim_device
from shmgemm._library import gemm_op, linear_op
from shmgemm._tensors import CODES, new
from shmgemm._transforms import cast
from shmgemm.errors import ShmgemmError, Unsupported


class DeviceShardedLinear(device_nn.DeviceLinear):
    """nn.Linear whose weight is split over `sim_devices` along `shard_dim`; see shard_linear_."""

    sim_devices: tuple[int, ...] = (0,)
    shard_dim: int = 0

    def _multiply(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        multiply = _linear_uncompiled if torch.compiler.is_compiling() else _linear
        return multiply(
            input, weight, bias, self.sim_devices, self.shard_dim, scope=self._shmgemm_fqn
        )

    def extra_repr(self) -> str:
        linear = nn.Linear.extra_repr(self)
        return f"{linear}, sim_devices={self.sim_devices}, shard_dim={self.shard_dim}"


def shard_linear_(
    model: nn.Module,
    devices: int | Sequence[int],
    dim: int = 0,
    *,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> list[str]:
    """Split a linear layer, or those of a model, over simulated devices; restore_ undoes it.

    Args:
        model: an nn.Linear, or a module with some in it; `filter_fn(module, name)` keeps those that
            it answers False for.
        devices: the devices' numbers, or how many, from 0 on.
        dim: of the weight [out_features, in_features]: 0 splits the output features, 1 the input
            features, whose partial results the devices then sum, each a share of them.

    Returns the layers' names. Raises Unsupported, the model being as it was, where a device is not
    there, a dimension does not divide, or there is no linear layer to split.
    """
    if not isinstance(model, nn.Module):
        raise Unsupported(f"shard_linear_: got {type(model).__name__}; expected an nn.Module")
    numbers = _check_devices(devices)
    if dim not in (0, 1):
        raise Unsupported(f"shard_linear_: got dim {dim!r}; expected 0 (out) or 1 (in_features)")
    kinds = (nn.Linear, device_nn.DeviceLinear, DeviceShardedLinear)
    chosen = {
        name: module
        for name, module in model.named_modules()
        if type(module) in kinds and (filter_fn is None or filter_fn(module, name))
    }
    if not chosen:
        raise Unsupported(f"shard_linear_: no linear layer of {type(model).__name__} to split")
    for name, module in chosen.items():
        _check_divides(module.weight, len(numbers), dim, name)
    for name, module in chosen.items():
        if type(module) is nn.Linear:
            module.__dict__["_shmgemm_original"] = nn.Linear
        module.__class__ = DeviceShardedLinear
        module.__dict__.update(sim_devices=numbers, shard_dim=dim)
        module.__dict__.setdefault("_shmgemm_fqn", name)
        if not all(_tensors.in_region(p) for p in module.parameters()):
            module.__dict__["_shmgemm_moved"] = device_nn.place(module)
    return list(chosen)


def _check_devices(devices: int | Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(range(devices)) if isinstance(devices, int) else tuple(devices)
    there = opening.current().devices
    if not numbers:
        raise Unsupported(f"shard_linear_: got devices {devices!r}; expected one at least")
    for number in numbers:
        check_sim_device(number)
        if number >= there:
            raise Unsupported(
                f"shard_linear_: got device {number}; expected less than {there}, the number of"
                " devices of the session"
            )
    return numbers


def _check_divides(weight: Tensor, parts: int, dim: int, name: str) -> None:
    size = weight.shape[dim]
    if size % parts or size == 0:
        raise Unsupported(
            f"shard_linear_: layer {name!r} has {size} {('out', 'in')[dim]}_features; expected a"
            f" multiple of {parts}, the number of devices"
        )


def _linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    devices: tuple[int, ...],
    dim: int,
    *,
    scope: str,
) -> Tensor:
    """F.linear over several devices; differentiable. On the first one inside torch's transforms."""
    input = _pending.settle(input)
    if torch.is_autocast_enabled("cpu"):
        added = None if bias is None else cast(bias)
        with torch.autocast("cpu", enabled=False):
            return _linear(cast(input), cast(weight), added, devices, dim, scope=scope)
    result: Tensor
    if not _sending.is_plain(input, weight, bias):
        result = linear_op(input, weight, bias, sim_device=devices[0], scope=scope)
        return result
    result = _Sharded.apply(  # type: ignore[no-untyped-call]
        input, weight, bias, devices, dim, scope
    )
    return result


# A graph ends before it: what it does with the session is nothing to trace.
_linear_uncompiled: Callable[..., Tensor] = _disable_dynamo(_linear)


class _Sharded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        devices: tuple[int, ...],
        dim: int,
        scope: str,
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.options = (devices, scope)
        code = check_linear(input, weight, bias)
        rows = input.reshape(-1, input.shape[-1])
        shape = (*input.shape[:-1], weight.shape[0])
        if 0 in shape or weight.shape[1] == 0 or CODES[input.dtype] == _dtypes.INT8:
            return _kernels.linear_cpu(input, weight, bias, sim_device=devices[0], scope=scope)
        if dim == 0:
            result = _by_columns(rows, weight.mT, bias, devices, "linear", scope)
        else:
            result = _by_terms(rows, weight.mT, bias, devices, code, scope)
        return result.reshape(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        input, weight = ctx.saved_tensors
        devices, scope = ctx.options
        rows = gradient.reshape(-1, weight.shape[0])
        columns = input.reshape(-1, weight.shape[1])
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = _product(rows, weight, devices, "linear.grad_input", scope)
            grad_input = grad_input.reshape(input.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = _product(rows.mT, columns, devices, "linear.grad_weight", scope)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_input, grad_weight, grad_bias, None, None, None


def _product(a: Tensor, b: Tensor, devices: tuple[int, ...], label: str, scope: str) -> Tensor:
    """a @ b over the devices; on the first one where it is to be differentiated again."""
    if torch.is_grad_enabled() or 0 in (*a.shape, *b.shape):
        result: Tensor = gemm_op(a, b, sim_device=devices[0], scope=scope, label=label)
        return result
    return _by_columns(a, b, None, devices, label, scope)


def _by_columns(
    a: Tensor, b: Tensor, bias: Tensor | None, devices: tuple[int, ...], label: str, scope: str
) -> Tensor:
    """a[M, K] @ b[K, N]: each device computes some columns of the result, in place."""
    (m, k), n = a.shape, b.shape[1]
    code = CODES[a.dtype]

    def run(core: _core.Session) -> Tensor:
        result = new((m, n), code, core)
        added = None if bias is None else _kernels.device_bias(bias)
        calls = []
        for device, (begin, end) in zip(devices, _parts(n, len(devices)), strict=True):
            if begin == end:
                continue
            calls.append(
                _core.GemmCall(
                    label,
                    m,
                    end - begin,
                    k,
                    1,
                    code,
                    code,
                    _view(a, 0),
                    _view(b, begin * b.stride(1)),
                    (result.data_ptr() + begin * result.itemsize, 0, n, 1),
                    0 if added is None else added.data_ptr() + begin * added.itemsize,
                    False,
                    device,
                )
            )
        core.gemm_batch(calls)
        return result

    return _on_devices(run, a, b, bias, devices, label, scope)


def _by_terms(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    devices: tuple[int, ...],
    code: int,
    scope: str,
) -> Tensor:
    """a[M, K] @ b[K, N]: each device sums some of the K terms, the first one sums the sums."""
    (m, k), n, count = a.shape, b.shape[1], len(devices)
    parts = _parts(k, count)

    def run(core: _core.Session) -> Tensor:
        partial = new((count, m * n), _dtypes.FLOAT32, core)
        result = new((1, m * n), code, core)
        added = None if bias is None else _kernels.device_bias(bias)
        ones = new((1, count), _dtypes.FLOAT32, core).fill_(1)
        sent: list[_core.Future] = []
        try:
            for index, device, (begin, end) in zip(range(count), devices, parts, strict=True):
                call = _core.GemmCall(
                    "linear",
                    m,
                    n,
                    end - begin,
                    1,
                    CODES[a.dtype],
                    _dtypes.FLOAT32,
                    _view(a, begin * a.stride(1)),
                    _view(b, begin * b.stride(0)),
                    (partial[index].data_ptr(), 0, n, 1),
                    added.data_ptr() if added is not None and index == 0 else 0,
                    False,
                    device,
                )
                sent.append(core.gemm_async(call))
            sent += _reduce(core, ones, partial, result, devices)
            while sent:
                sent.pop(0).result()
        finally:
            sent.clear()  # dropped, a product keeps the blocks that are still there
        return result

    return _on_devices(run, a, b, bias, devices, "linear", scope)


def _reduce(
    core: _core.Session, ones: Tensor, partial: Tensor, result: Tensor, devices: tuple[int, ...]
) -> list[_core.Future]:
    """ones[1, count] @ partial[count, :] into result[0, :]: each device sums a share of it."""
    count, size = partial.shape
    for device, mark in [(d, core.mark(other)) for d in devices for other in devices if other != d]:
        core.wait_for(device, mark)
    sent = []
    for device, (begin, end) in zip(devices, _parts(size, count), strict=True):
        if begin == end:
            continue
        call = _core.GemmCall(
            "linear.reduce",
            1,
            end - begin,
            count,
            1,
            _dtypes.FLOAT32,
            CODES[result.dtype],
            _view(ones, 0),
            _view(partial, begin),
            _view(result, begin),
            0,
            False,
            device,
        )
        sent.append(core.gemm_async(call))
    return sent


def _view(matrix: Tensor, start: int) -> tuple[int, int, int, int]:
    """From an element on: address, batch, row and column stride."""
    row, column = matrix.stride()
    return matrix.data_ptr() + start * matrix.itemsize, 0, row, column


def _parts(size: int, count: int) -> list[tuple[int, int]]:
    """Equal ranges, but for the last ones where it does not divide."""
    step = -(-size // count)
    return [(min(i * step, size), min((i + 1) * step, size)) for i in range(count)]


def _on_devices(
    run: Callable[[_core.Session], Tensor],
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    devices: tuple[int, ...],
    label: str,
    scope: str,
) -> Tensor:
    """Runs it in the devices' own streams, after the current one; on the CPU where they fail."""
    outer_scope = _core.scope()
    try:
        if scope:
            _core.set_scope(scope)
        core = _core.current_session()
        with _own_streams(core, devices):
            return run(core)
    except ShmgemmError as error:
        m, n, k = a.shape[0], b.shape[1], a.shape[1]
        _fallback.fall(error, label, m, n, k, 1)
        with _disable_current_modes():  # it is counted already
            return _kernels.on_cpu((m, n), a, b, bias, CODES[a.dtype])
    finally:
        _core.set_scope(outer_scope)


@contextmanager
def _own_streams(core: _core.Session, devices: tuple[int, ...]) -> Iterator[None]:
    outer = _core.current_stream()
    if outer:
        mark = core.mark(outer)
        for device in devices:
            core.wait_for(device, mark)
    _core.set_current_stream(0)
    try:
        yield
    finally:
        _core.set_current_stream(outer)
