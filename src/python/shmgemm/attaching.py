"""Sessions on an engine that runs already: behind a device server, or another process's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import _core, _runtime, settings
from . import hardware as _hardware
from ._same_hardware import check_same, check_served
from .errors import DeviceLost, Unsupported
from .session import Session, enter


def connect(
    server: str,
    region: str | Path | None = None,
    hardware: str | Path | Mapping[str, Any] | None = None,
    *,
    connections: int = 4,
    numerics: str | None = None,
    devices: int | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    debug: bool | None = None,
    **parameters: Any,
) -> Session:
    """Attach to a device server that runs already, and make that the current session.

    Args:
        server: "HOST:PORT", such as "127.0.0.1:9999": a guest's (`shmgemm guest boot`), or one on
            this machine (`shmgemm serve`).
        region: the file of the region that the server's engine serves. With it matrices stay in
            shared memory and only records travel; an arena of the region is leased until the
            session ends. Without it every matrix travels over TCP, and no cycles come back: the
            profile says 0.
        hardware: what the server's engine was started with; with a region it is checked.
        connections: without a region, at most so many are open at once.
        numerics, devices, strict, timeout, debug, parameters: as `open` takes them; `timeout` is
            also how long one product may take where matrices travel.

    Raises:
        ValueError: a setting that is not legal, or hardware that is not the engine's.
        DeviceLost: nobody listens there, or no engine is behind the server.
        Unsupported: no HOST:PORT, no such region, or `processes`, which a server does not have.
        RegionFull: every arena of the region is leased.
        ProtocolError: the region's file is none of ours.
    """
    if not server:
        raise Unsupported("device server '': expected HOST:PORT, such as 127.0.0.1:9999")
    if "processes" in parameters:
        raise Unsupported("connect(processes=): a device server has one engine behind it")
    arguments = {
        "hardware": hardware,
        "numerics": numerics,
        "devices": devices,
        "strict": strict,
        "timeout": timeout,
        "debug": debug,
    }
    found = {name: settings.resolve_with_origin(name, arguments[name]) for name in arguments}
    given = {name: resolved.value for name, resolved in found.items()}
    described = _hardware.load(given["hardware"], parameters, place=found["hardware"].place)
    core = _core.Session.connect(
        server=server,
        region_path="" if region is None else str(region),
        connections=connections,
        devices=given["devices"],
        timeout_s=given["timeout"],
        bit_accurate=given["numerics"] == "bit_accurate",
        debug=given["debug"],
    )
    session = Session(core, described, given["numerics"], given["strict"], given["devices"])
    if region is not None:
        check_served(session, f"the engine behind {server}")
    return enter(session)


def attach(
    session: str | Path,
    hardware: str | Path | Mapping[str, Any] | None = None,
    *,
    numerics: str | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    debug: bool | None = None,
    **parameters: Any,
) -> Session:
    """Work on the devices of another process's session, and make that the current one.

    Both use one engine at the same time, each with a queue pair and an arena of the region of its
    own; their commands take turns. The engine ends with the session that opened it: then this one
    is over, its ops raise DeviceLost, and it takes another `attach` to go on.

    Args:
        session: the name it was opened with, `shmgemm.open(name=...)`, or the path of its engine's
            socket (anything with a folder in it).
        hardware: what the session is expected to have, checked where it is given; the engine says
            what it is. `parameters` replace single entries of it.
        numerics, strict, timeout, debug: as `open` takes them; `timeout` is also how long the
            engine may take to answer.

    Raises:
        ValueError: a setting that is not legal, or hardware that is not the engine's.
        DeviceLost: no session of that name is open; the message lists those that are.
        RegionFull: as many processes have attached as the session was opened for.
        DeviceTimeout, ProtocolError, Unsupported: what listens there does not answer as an engine.
    """
    arguments = {"numerics": numerics, "strict": strict, "timeout": timeout, "debug": debug}
    given = {name: settings.resolve(name, value) for name, value in arguments.items()}
    core = _core.Session.attach(
        path=str(_attach_path(session)),
        timeout_s=given["timeout"],
        bit_accurate=given["numerics"] == "bit_accurate",
        debug=given["debug"],
    )
    try:
        described = _hardware.of_parameters(core.parameters)
        if hardware is not None or parameters:
            expected = _hardware.load(hardware, parameters)
            check_same(expected, described, f"the session {str(session)!r}")
            described = expected
    except BaseException:
        core.close()
        raise
    attached = Session(core, described, given["numerics"], given["strict"], core.devices)
    return enter(attached)


def _attach_path(session: str | Path) -> Path:
    if isinstance(session, Path) or "/" in session:
        return Path(session).expanduser()
    setting = settings.SETTINGS["name"]
    try:
        path = _runtime.socket_of(setting.parse(session))
    except ValueError:
        raise ValueError(f"session = {session!r}: expected {setting.legal}, or a path") from None
    if not _runtime.listens(path):
        raise DeviceLost(f"no session {session!r} at {path}: {_runtime.existing_text(session)}")
    return path
