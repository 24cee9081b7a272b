"""The guest of a session: where its engine listens, and the machine that connects there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from . import guest

_READY_TIMEOUT_S = 60.0  # for a machine that is busy with other things as well


class GuestPath:
    """What the core calls when it needs a guest: boots one, and another where that one has ended.

    Raises, when made, what guest.build() raises.
    """

    arena_bytes = 16 << 20  # of the region, for the device server in the guest

    def __init__(self, share: str | None, link: str | None = None) -> None:
        self._image = guest.build()
        self._share = share
        self._folder = Path(tempfile.mkdtemp(prefix="shmgemm-"))
        self.link = link or str(self._folder / "engine.sock")
        self.machine: guest.Guest | None = None

    def __call__(self, region_fd: int) -> str:
        """HOST:PORT of the device server of a guest with the region that `region_fd` names."""
        if self.machine is None or not self.machine.running():
            if self.machine is not None:
                self.machine.stop()
            region = f"/proc/{os.getpid()}/fd/{region_fd}"
            self.machine = guest.Guest(region, self.link, self._share, image=self._image)
            self.machine.start()
            self.machine.wait_ready(_READY_TIMEOUT_S)
        return f"127.0.0.1:{self.machine.port}"

    def close(self) -> None:
        """Stop the guest. Twice does no harm."""
        if self.machine is not None:
            self.machine.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
