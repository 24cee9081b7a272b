"""Put a model's linear layers on the simulated device, in place, and take them back.

A layer keeps its identity: only its class changes, to the device layer that extends it. So
parameters, ties, hooks, training flags and references from elsewhere stay as they are.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from shmgemm import _pending, _tensors, opening, session, settings
from shmgemm import nn as device_nn
from shmgemm._dtypes import FLOATS, check_sim_device
from shmgemm.errors import RegionFull, Unsupported

Filter = Callable[[nn.Module, str], bool]
Placement = str | Callable[[nn.Module, str], int]

_LINEARS = (nn.Linear, NonDynamicallyQuantizableLinear)
_WITHOUT_PRODUCTS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
_OWN_PRODUCTS = (nn.RNNBase, nn.RNNCellBase, nn.Bilinear, nn.modules.conv._ConvNd)
_STATE = (
    "_shmgemm_original",
    "_shmgemm_moved",
    "_shmgemm_fqn",
    "sim_device",
    "min_rows",
    "min_macs",
    "pipeline",
    "sim_devices",
    "shard_dim",
)


@dataclass
class OffloadReport:
    """What offload_ did: what runs on the device, and what does not, each with the reason."""

    offloaded: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    no_room: list[str] = field(default_factory=list)  # offloaded, but not all weights are placed

    def __str__(self) -> str:
        lines = [f"on the device: {len(self.offloaded)} layers"]
        if self.no_room:
            lines.append(
                f"no room in the region for the weights of: {', '.join(self.no_room)}; a call"
                " copies them if there is room by then, else it runs on the CPU with a"
                " FallbackWarning (strict: RegionFull); open a larger region"
            )
        lines += [
            f"left on the CPU: {name or 'the model'}: {why}" for name, why in self.left.items()
        ]
        return "\n".join(lines)


def offload_(
    model: nn.Module,
    filter_fn: Filter | None = None,
    *,
    min_rows: int = 0,
    min_macs: int = 0,
    sim_device: int = 0,
    placement: Placement | None = None,
    pipeline: bool = False,
    place: bool = True,
) -> OffloadReport:
    """Run a model's linear layers on the simulated device from now on; restore_(model) undoes it.

    nn.Linear, the projections of nn.MultiheadAttention (and with them nn.Transformer's layers,
    whose fused inference path is switched off) and transformers' Conv1D change; `filter_fn(module,
    name)` keeps those that it answers False for. What stays is in the report with its reason.

    Args:
        min_rows, min_macs: a call below either stays on the CPU, and is counted.
        sim_device: the number of the device for all layers, where there is no `placement`.
        placement: "round_robin" over the devices of the session, or a function of (module, name)
            that returns a device's number.
        pipeline: a layer's call outside of autograd returns before its values are there; they are
            waited for where something other than a view or a pipelined layer needs them, at the
            latest when the model returns. Branches of the model then overlap, and so do the copies
            of one layer's operands and the work on another's.
        place: move the weights into the region, opening a session large enough where none is open;
            the report names layers without room for theirs. False copies them at each call.

    Raises Unsupported for what is no module, a threshold below 0, and a device that the open
    session does not have; the model is then as it was.
    """
    if not isinstance(model, nn.Module):
        raise Unsupported(f"offload_: got {type(model).__name__}; expected an nn.Module")
    for name, value in (("min_rows", min_rows), ("min_macs", min_macs)):
        if not isinstance(value, int) or value < 0:
            raise Unsupported(f"offload_: got {name} {value!r}; expected a whole number, 0 or more")
    device_of = _placement(placement, sim_device)
    report = OffloadReport()
    chosen: list[_Choice] = []
    owned = _inner_projections(model)
    for name, module in list(model.named_modules()):
        if id(module) in owned:
            continue
        target = _target(module)
        if target is None:
            why = _why_left(module)
            if why:
                report.left[name] = why
            continue
        why = _why_not(module) or (
            "filter_fn" if filter_fn and not filter_fn(module, name) else None
        )
        if why:
            report.left[name] = why
            continue
        device = device_of(module, name)
        _check_device(device, name)
        chosen.append(_Choice(name, module, target, device))
    for choice in chosen:
        _swap(choice, min_rows, min_macs, pipeline)
        report.offloaded.append(choice.name)
    if place:
        report.no_room = _place({choice.name: choice.module for choice in chosen})
    _switch_off_fused_paths(model)
    if pipeline:
        _settle_outputs(model)
    if not report.offloaded:
        warnings.warn(
            f"offload_: no layer of {type(model).__name__} was offloaded\n{report}", stacklevel=2
        )
    return report


def restore_(model: nn.Module) -> int:
    """Undo offload_: the layers become what they were. Returns how many there were."""
    if not isinstance(model, nn.Module):
        raise Unsupported(f"restore_: got {type(model).__name__}; expected an nn.Module")
    restored = 0
    for module in model.modules():
        for name, value in module.__dict__.pop("_shmgemm_switched_off", {}).items():
            setattr(module, name, value)
        for key, hook in list(module._forward_hooks.items()):
            if hook is _settle_output:
                del module._forward_hooks[key]
        if "_shmgemm_original" not in module.__dict__:
            continue
        module.__class__ = module.__dict__["_shmgemm_original"]
        if module.__dict__.get("_shmgemm_moved"):
            _tensors.move_back(_own_parameters(module))
        for name in _STATE:
            module.__dict__.pop(name, None)
        restored += 1
    return restored


def _inner_projections(model: nn.Module) -> set[int]:
    """The Linears inside attention modules: never called, they belong to those modules."""
    return {
        id(module.out_proj)
        for module in model.modules()
        if isinstance(module, nn.MultiheadAttention)
    }


def _target(module: nn.Module) -> type[nn.Module] | None:
    if isinstance(module, device_nn.DeviceLayer):
        return type(module)
    if type(module) in _LINEARS:
        return device_nn.DeviceLinear
    if type(module) is nn.MultiheadAttention:
        return device_nn.DeviceMultiheadAttention
    if type(module) is device_nn.conv1d_class():
        return device_nn.DeviceConv1D  # type: ignore[no-any-return]
    return None


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """A layer's parameters; an attention module's include its output projection's."""
    return list(module.parameters(recurse=isinstance(module, nn.MultiheadAttention)))


def _why_not(module: nn.Module) -> str | None:
    """Why a layer of a type that could be offloaded cannot be."""
    if "forward" in module.__dict__:
        return "its forward was replaced on the instance"
    for parameter in _own_parameters(module):
        if type(parameter) is not nn.Parameter or parameter.layout is not torch.strided:
            return f"its parameter is a {parameter.layout} {type(parameter).__name__}"
        if parameter.device.type not in ("cpu", "meta"):
            return f"on {parameter.device}: the device reads host memory"
        if _tensors.CODES.get(parameter.dtype) not in FLOATS:
            return f"{parameter.dtype}: devices have float32, float16 and bfloat16"
    return None


def _why_left(module: nn.Module) -> str | None:
    """Why a module that seems to multiply by a matrix of its own stays on the CPU, or None."""
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return f"{kind} has no weight yet: run the model once, then offload it"
    if isinstance(module, nn.Linear):
        return f"{kind} is a subclass of nn.Linear with a behaviour of its own"
    if isinstance(module, nn.MultiheadAttention):
        return f"{kind} is a subclass of nn.MultiheadAttention with a behaviour of its own"
    if isinstance(module, _OWN_PRODUCTS):
        return f"{kind} is no linear layer"
    if isinstance(module, _WITHOUT_PRODUCTS):
        return None
    matrices = [
        f"{name} {tuple(parameter.shape)}"
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() >= 2
    ]
    if matrices:
        return (
            f"{kind} holds {', '.join(matrices)}: what it does with them by F.linear or matmul is"
            " offloaded under shmgemm.offload_functional() alone"
        )
    return None


class _Choice(NamedTuple):
    """A layer to offload: the class it gets, and the device."""

    name: str
    module: nn.Module
    target: type[nn.Module]
    sim_device: int


def _check_device(sim_device: int, layer: str) -> None:
    check_sim_device(sim_device)
    opened = session.current_or_none()
    if opened is not None and sim_device >= opened.devices:
        raise Unsupported(
            f"offload_: got sim_device {sim_device} for layer {layer!r}; expected less than"
            f" {opened.devices}, the number of devices of the open session"
        )


def _placement(placement: Placement | None, sim_device: int) -> Callable[[nn.Module, str], int]:
    if placement is None:
        return lambda _module, _name: sim_device
    if callable(placement):
        return placement
    if placement != "round_robin":
        raise Unsupported(
            f'offload_: got placement {placement!r}; expected "round_robin" or a function of'
            " (module, name)"
        )
    turns = itertools.count()
    return lambda _module, _name: next(turns) % opening.current().devices


def _settle_output(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return _pending.settle(output)


def _settle_outputs(model: nn.Module) -> None:
    """Let nothing pending out of the model."""
    if _settle_output not in model._forward_hooks.values():
        model.register_forward_hook(_settle_output)


def _swap(choice: _Choice, min_rows: int, min_macs: int, pipeline: bool) -> None:
    module = choice.module
    if type(module) is not choice.target:
        module.__dict__["_shmgemm_original"] = type(module)
        module.__class__ = choice.target
    module.__dict__.update(
        sim_device=choice.sim_device,
        min_rows=min_rows,
        min_macs=min_macs,
        pipeline=pipeline,
        _shmgemm_fqn=choice.name,
    )


def _place(modules: dict[str, nn.Module]) -> list[str]:
    """Move the layers' parameters into the region; returns the layers that found no room."""
    own = {name: _own_parameters(module) for name, module in modules.items()}
    _open_for(sum(p.nbytes for p in {p for parameters in own.values() for p in parameters}))
    for name, parameters in own.items():
        if not all(_tensors.in_region(p) for p in parameters):
            modules[name].__dict__["_shmgemm_moved"] = True
    left = {id(t) for t in _tensors.move(p for parameters in own.values() for p in parameters)}
    return [name for name, parameters in own.items() if any(id(p) in left for p in parameters)]


def _open_for(weight_bytes: int) -> None:
    """Open a session, where none is, whose region has room for the weights and as much again."""
    if session.current_or_none() is not None:
        return
    setting = settings.resolve_with_origin("region")
    region_bytes = max(setting.value, 1 << (2 * weight_bytes).bit_length())
    if setting.origin == "default":
        try:
            opening.open(region=region_bytes)
            return
        except (
            RegionFull
        ):  # more than the machine has: the smaller one, and no room for some weights
            pass
    opening.current()


def _switch_off_fused_paths(model: nn.Module) -> None:
    """torch's fused encoder layer reads the weights itself and calls none of the layers inside."""
    for module in model.modules():
        if not any(isinstance(child, device_nn.DeviceLayer) for child in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            _switch_off(module, "activation_relu_or_gelu", 0)
        elif isinstance(module, nn.TransformerEncoder):
            _switch_off(module, "use_nested_tensor", False)


def _switch_off(module: nn.Module, name: str, value: object) -> None:
    saved = module.__dict__.setdefault("_shmgemm_switched_off", {})
    saved.setdefault(name, getattr(module, name))
    setattr(module, name, value)
