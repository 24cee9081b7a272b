"""Matrix products on a simulated accelerator: the numbers, and the cycles hardware would take.

Importing this costs next to nothing: torch, the session and the engine come with the first use.
Without torch, `gemm`, `linear`, `empty` and `profile` serve NumPy arrays.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "linux" or not hasattr(os, "memfd_create"):
    raise ImportError(
        "shmgemm needs Linux with memfd_create (kernel 3.17, glibc 2.27) for its shared region;"
        f" this is {sys.platform}."
    )

if TYPE_CHECKING:
    from shmgemm import errors as errors
    from shmgemm._tensors import empty as empty
    from shmgemm._tensors import to_region as to_region
    from shmgemm.attaching import attach as attach
    from shmgemm.attaching import connect as connect
    from shmgemm.functional import offload_functional as offload_functional
    from shmgemm.futures import Future as Future
    from shmgemm.nn import DeviceLinear as DeviceLinear
    from shmgemm.offload import offload_ as offload_
    from shmgemm.offload import restore_ as restore_
    from shmgemm.opening import current as current
    from shmgemm.opening import open as open
    from shmgemm.ops import batch as batch
    from shmgemm.ops import gemm as gemm
    from shmgemm.ops import gemm_async as gemm_async
    from shmgemm.ops import linear as linear
    from shmgemm.ops import linear_async as linear_async
    from shmgemm.profiling import profile as profile
    from shmgemm.profiling import stats as stats
    from shmgemm.session import Session as Session
    from shmgemm.sharding import shard_linear_ as shard_linear_
    from shmgemm.streams import Event as Event
    from shmgemm.streams import Stream as Stream
    from shmgemm.streams import current_stream as current_stream
    from shmgemm.streams import stream as stream
    from shmgemm.streams import synchronize as synchronize

# name -> (module with torch, module without it)
_HOMES = {
    "open": ("opening", "opening"),
    "connect": ("attaching", "attaching"),
    "attach": ("attaching", "attaching"),
    "current": ("opening", "opening"),
    "Session": ("session", "session"),
    "gemm": ("ops", "_arrays"),
    "linear": ("ops", "_arrays"),
    "gemm_async": ("ops", "_arrays"),
    "linear_async": ("ops", "_arrays"),
    "batch": ("ops", "_arrays"),
    "Future": ("futures", "futures"),
    "Stream": ("streams", "streams"),
    "Event": ("streams", "streams"),
    "stream": ("streams", "streams"),
    "current_stream": ("streams", "streams"),
    "synchronize": ("streams", "streams"),
    "empty": ("_tensors", "_arrays"),
    "to_region": ("_tensors", None),
    "DeviceLinear": ("nn", None),
    "offload_": ("offload", None),
    "restore_": ("offload", None),
    "shard_linear_": ("sharding", None),
    "offload_functional": ("functional", None),
    "profile": ("profiling", "profiling"),
    "stats": ("profiling", "profiling"),
}
_ERRORS = (
    "ShmgemmError",
    "DeviceLost",
    "DeviceTimeout",
    "ProtocolError",
    "RegionFull",
    "Unsupported",
    "SessionClosed",
    "FallbackWarning",
)

__all__ = [*_HOMES, *_ERRORS, "__version__", "errors"]


def _has_torch() -> bool:
    if "torch" in sys.modules:
        return sys.modules["torch"] is not None
    return importlib.util.find_spec("torch") is not None


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with_torch, without = _HOMES[name]
        home = with_torch if _has_torch() else without
        if home is None:
            raise ImportError(
                f"shmgemm.{name} needs torch, which is not installed: pip install torch"
            )
        value = getattr(importlib.import_module(f"shmgemm.{home}"), name)
    elif name in _ERRORS:
        value = getattr(importlib.import_module("shmgemm.errors"), name)
    elif name == "errors":
        value = importlib.import_module("shmgemm.errors")
    elif name == "__version__":
        value = importlib.import_module("shmgemm._version").__version__
    else:
        raise AttributeError(f"module 'shmgemm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _AfterTorch:
    """Registers torch.ops.shmgemm when torch is imported after this package, whoever imports it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: Any) -> None:
            execute(module)
            importlib.import_module("shmgemm.ops")

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if sys.modules.get("torch") is not None:
    importlib.import_module("shmgemm.ops")
elif "torch" not in sys.modules:
    sys.meta_path.insert(0, _AfterTorch())
