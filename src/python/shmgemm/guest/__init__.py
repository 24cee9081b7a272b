"""The guest: RISC-V Linux in QEMU between a client and an engine.

`build()` makes what a guest boots from, once, under $XDG_CACHE_HOME/shmgemm: kernel, initramfs and
the virtio-sst plug-in for the installed QEMU. `Guest` is a machine that runs it; `exec` on it runs
commands inside.

    import shmgemm.guest

    with shmgemm.guest.Guest(region_path="/dev/shm/region", link_path="/run/engine.sock") as guest:
        guest.wait_ready()
        status, output = guest.exec(["sstctl", "ping"])
"""

from __future__ import annotations

from ._image import VARIANTS, Image, build
from ._machine import Guest, GuestError

__all__ = ["VARIANTS", "Guest", "GuestError", "Image", "build"]
