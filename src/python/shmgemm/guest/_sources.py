"""Where the guest's sources are: they come with the package, laid out as in the repository."""

from __future__ import annotations

from pathlib import Path

from ..errors import Unsupported

ROOT = Path(__file__).parent.parent / "guest_sources"
GUEST = ROOT / "guest"
KERNEL_CONFIG = GUEST / "kernel"
KERNEL_MODULE = ROOT / "kernel_module"
QEMU_DEVICE = ROOT / "qemu_device"
ABI = ROOT / "src" / "cpp" / "abi"


def check() -> None:
    """Raise Unsupported where this package was installed without them."""
    if not KERNEL_CONFIG.is_dir():
        raise Unsupported(f"{ROOT} is missing: install shmgemm again from source")
