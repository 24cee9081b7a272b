"""torch tensors that lie in the shared region: made there, or moved there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from shmgemm import _core, _dtypes
from shmgemm import opening as _opening  # noqa: F401 - opens the default session
from shmgemm.errors import RegionFull, Unsupported

CODES = {getattr(torch, name): code for name, code in _dtypes.CODES.items()}
DTYPES = {code: dtype for dtype, code in CODES.items()}

_from_dlpack = torch._C._from_dlpack
_Module = TypeVar("_Module", bound=nn.Module)


def dtype_of(dtype: object) -> torch.dtype:
    """The torch dtype of a torch dtype, a NumPy dtype or a name, if devices have it."""
    if isinstance(dtype, torch.dtype):
        found = dtype
    else:
        name = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
        found = getattr(torch, str(name), None)  # type: ignore[assignment]
    if found not in CODES:
        raise Unsupported(
            f"shmgemm.empty: got dtype {dtype}; expected one of {', '.join(_dtypes.CODES)}"
        )
    return found


def new(shape: tuple[int, ...], code: int, session: _core.Session | None = None) -> Tensor:
    """An uninitialised tensor in the region; the tensor keeps its block alive."""
    if 0 in shape:
        return torch.empty(shape, dtype=DTYPES[code])
    block = (session or _core.current_session()).empty(shape, code)
    tensor: Tensor = _from_dlpack(block.__dlpack__())
    return tensor


def empty(*sizes: int | Iterable[int], dtype: object = torch.float32) -> Tensor:
    """Uninitialised tensor in the region. `sizes` as for torch.empty: numbers, or one sequence.

    Raises RegionFull where it does not fit and Unsupported for a dtype that no device multiplies.
    """
    numbers = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], Iterable) else sizes
    shape = tuple(int(size) for size in numbers)  # type: ignore[arg-type]
    if any(size < 0 for size in shape):
        raise Unsupported(f"shmgemm.empty: got shape {shape}; expected no negative size")
    return new(shape, CODES[dtype_of(dtype)])


def in_region(tensor: Tensor) -> bool:
    """Whether the tensor's whole storage lies in the current session's region."""
    session = _core.current_session_or_none()
    if session is None or tensor.device.type != "cpu":
        return False
    storage = tensor.untyped_storage()
    return storage.nbytes() > 0 and session.contains(storage.data_ptr(), storage.nbytes())


def movable(tensor: Tensor) -> bool:
    """Whether the region can hold it: dense CPU memory of this process, of a type devices know."""
    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and tensor.dtype in CODES
        and tensor.numel() > 0
        and not tensor.is_shared()  # type: ignore[no-untyped-call]
    )


def move(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Move tensors into the region in place, by their `data`; returns those that found no room.

    Strides stay, and tensors that share memory go on sharing it.
    """
    left: list[Tensor] = []
    for group in _groups(t for t in tensors if movable(t) and not in_region(t)):
        try:
            _rehome(group, lambda count: new((count,), _dtypes.INT8))
        except RegionFull:
            left += group
    return left


def move_back(tensors: Iterable[Tensor]) -> None:
    """Undo move(): the tensors' data goes to ordinary memory."""
    for group in _groups(t for t in tensors if in_region(t)):
        _rehome(group, lambda count: torch.empty(count, dtype=torch.int8))


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte and one past the last, as addresses."""
    begin = tensor.data_ptr()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return begin, begin + (1 + sum((n - 1) * s for n, s in steps)) * tensor.element_size()


def _groups(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors whose memory overlaps, together."""
    groups: list[list[Tensor]] = []
    end = 0
    for tensor in sorted({id(t): t for t in tensors}.values(), key=Tensor.data_ptr):
        begin, tensor_end = _extent(tensor)
        if groups and begin < end:
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
        end = max(end, tensor_end)
    return groups


def _rehome(group: list[Tensor], allocate: Callable[[int], Tensor]) -> None:
    """Copy a group's memory once and let its tensors' data be views of the copy."""
    begin = min(_extent(t)[0] for t in group)
    count = max(_extent(t)[1] for t in group) - begin
    there = allocate(count)
    storage = group[0].untyped_storage()
    there.copy_(_view(storage, torch.int8, begin - storage.data_ptr(), (count,), (1,)))
    for tensor in group:
        offset = (tensor.data_ptr() - begin) // tensor.element_size()
        tensor.data = _view(
            there.untyped_storage(), tensor.dtype, offset, tensor.shape, tensor.stride()
        )


def _view(
    storage: torch.UntypedStorage,
    dtype: torch.dtype,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> Tensor:
    empty_tensor: Any = torch.empty(0, dtype=dtype)
    view: Tensor = empty_tensor.set_(storage, offset, shape, strides)
    return view


@overload
def to_region(value: _Module) -> _Module: ...
@overload
def to_region(value: Tensor) -> Tensor: ...
def to_region(value: nn.Module | Tensor) -> nn.Module | Tensor:
    """Put a module's parameters, or a tensor, into the region: products then use them uncopied.

    A module and a Parameter are changed in place (their `data` is swapped: identity, ties and
    optimizers stay good) and returned. Any other tensor is copied, differentiably; one that lies
    there is returned. Raises RegionFull where they do not fit.
    """
    if isinstance(value, nn.Module):
        _move_all(list(value.parameters()))
        return value
    if not isinstance(value, Tensor):
        raise Unsupported(
            f"shmgemm.to_region: got {type(value).__name__}; expected a tensor or a module"
        )
    if value.device.type != "cpu" or value.dtype not in CODES or value.layout is not torch.strided:
        raise Unsupported(
            f"shmgemm.to_region: got a {value.dtype} tensor on {value.device}; expected a dense CPU"
            f" tensor of {', '.join(_dtypes.CODES)}"
        )
    if isinstance(value, nn.Parameter):
        _move_all([value])
        return value
    if value.numel() == 0 or in_region(value):
        return value
    return new(tuple(value.shape), CODES[value.dtype]).copy_(value)


def _move_all(parameters: list[nn.Parameter]) -> None:
    left = move(parameters)
    if left:
        count = sum(t.nbytes for t in left)
        raise RegionFull(
            f"shmgemm.to_region: no room for {len(left)} of {len(parameters)} parameters,"
            f" {count} bytes; open the session with a larger region"
        )
