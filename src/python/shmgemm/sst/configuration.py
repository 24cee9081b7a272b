"""What `engine="sst"` starts SST with: one HostPort and the session's devices, all alike.

SST runs this file, not Python; the session's words for its engine follow `--` on SST's command
line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import sst

OPTIONS = (
    "--region-fd",
    "--control-fd",
    "--parent",
    "--devices",
    "--threads",
    "--header",
    "--link",
    "--plugin",
)


def read(words: Iterable[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The words as a dictionary of lists, and the hardware's parameters."""
    options: dict[str, list[str]] = {option: [] for option in OPTIONS}
    hardware = {}
    words = iter(words)
    for word in words:
        if word in options:
            options[word].append(next(words))
        else:
            key, _, value = word.partition("=")
            hardware[key] = value
    return options, hardware


def build(options: dict[str, list[str]], hardware: dict[str, str]) -> None:
    """The components; the HostPort first, so that it can tell the session of a device's error."""
    host = sst.Component("host", "shmgemm.HostPort")
    for name in ("region_fd", "control_fd", "parent", "devices", "threads"):
        (value,) = options["--" + name.replace("_", "-")]
        host.addParam(name, value)
    for name in ("header", "link"):
        for value in options["--" + name]:
            host.addParam(name, value)
    for index in range(int(options["--devices"][0])):
        device = sst.Component(f"device{index}", "shmgemm.GemmDevice")
        device.addParams({**hardware, "device": index, "plugins": ":".join(options["--plugin"])})


build(*read(sys.argv[1:]))
