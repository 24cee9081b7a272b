"""Opening a session with engines of its own: `open()`, or the first op that finds none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _core, _runtime, plugins, session, settings, sst
from . import hardware as _hardware
from ._same_hardware import check_served
from .engine import default_engine_path
from .errors import Unsupported
from .session import Session

if TYPE_CHECKING:
    from ._guest_path import GuestPath


def open(
    engine: str | None = None,
    guest: bool | None = None,
    hardware: str | Path | Mapping[str, Any] | None = None,
    *,
    numerics: str | None = None,
    devices: int | None = None,
    processes: int | None = None,
    region: int | str | None = None,
    threads: int | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    debug: bool | None = None,
    plugins: str | Path | Iterable[str | Path] | None = None,
    engine_path: str | Path | None = None,
    sst_config: str | Path | None = None,
    share: str | Path | None = None,
    name: str | None = None,
    clients: int | None = None,
    **parameters: Any,
) -> Session:
    """Open a session and make it the current one.

    Args:
        engine: "embedded" (a process of our own) or "sst".
        guest: go through RISC-V Linux in QEMU: what a guest needs is built the first time (up to
            10 minutes), then one boots for this session and ends with it.
        hardware: a preset's name, a TOML file or a mapping; `parameters` (`rows=64`,
            `model="scalesim_ws"`) replace single entries of it.
        numerics: "fast", or "bit_accurate": every sum in the order in which the modelled array
            accumulates (docs/numerics.md), on the device; what falls back to the CPU is not.
        devices: how many simulated devices there are.
        processes: engine processes that serve them, from 1 to 8 and no more than devices: device d
            is served by process d % processes. One that dies loses its own devices' ops alone. The
            simulated times and the bits of blocking ops do not depend on it.
        region: bytes of the shared region, a power of two from 4 MiB on, or "256MiB".
        threads: of each engine's computing; 0 means one for each CPU, shared among the engines. The
            bits do not depend on it.
        strict: raise device errors instead of falling back to the CPU.
        timeout: seconds without a sign of life after which the engine is given up.
        debug: write each command to stderr.
        plugins: shared objects with timing models of your own, a path or several.
        engine_path: another `shmgemm-engine`, or another `sst`.
        sst_config: an SST configuration of your own for engine="sst", with a shmgemm.HostPort and
            `devices` shmgemm.GemmDevices that are `hardware` (`shmgemm sst-config` prints one).
        share: a folder that the guest sees at /mnt/shared.
        name: other processes of this user can work on the same devices: `shmgemm.attach(name)`.
        clients: how many of them at once, 1 to 7 (6 beside a guest). The region's heap is divided
            evenly between this session and them.

    What is not given comes from `SHMGEMM_*`, then from the settings file, then from the defaults.

    Raises:
        ValueError: a setting, parameter or plug-in that is not legal; the message says where it
            came from.
        FileNotFoundError: a file that does not exist.
        Unsupported: engine="sst" without SST, or without the element built for it; guest=True
            without the Debian packages that a guest is built from; more processes than devices, or
            several with guest=True or sst_config.
        RegionFull, Unsupported, DeviceLost, DeviceTimeout, ProtocolError: no engine could start.
    """
    opened = _open(
        {
            "engine": engine,
            "guest": guest,
            "hardware": hardware,
            "numerics": numerics,
            "devices": devices,
            "processes": processes,
            "region": region,
            "threads": threads,
            "strict": strict,
            "timeout": timeout,
            "debug": debug,
            "plugins": plugins,
            "engine_path": engine_path,
            "sst_config": sst_config,
            "share": share,
            "name": name,
            "clients": clients,
        },
        parameters,
    )
    return session.enter(opened)


def _open(arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> Session:
    found = {name: settings.resolve_with_origin(name, arguments[name]) for name in arguments}
    given = {name: resolved.value for name, resolved in found.items()}
    models_from = plugins.load(arguments["plugins"])
    described = _hardware.load(given["hardware"], parameters, place=found["hardware"].place)
    _check_processes(given, found["processes"].place)
    engine_path: str = given["engine_path"] or default_engine_path()
    engine_words: list[str] = []
    if given["engine"] == "sst":
        engine_path, engine_words = sst.command(given["engine_path"], given["sst_config"])
    if given["name"] is None and arguments["clients"] is not None:
        raise ValueError(f"clients = {given['clients']!r} without a name: nobody can attach")
    link = "" if given["name"] is None else str(_runtime.socket_of(given["name"]))
    path = _guest_path(given["share"], link) if given["guest"] else None
    try:
        core = _core.Session(
            engine_path=engine_path,
            engine_words=engine_words,
            parameters=described.parameters,
            plugins=models_from,
            region_bytes=given["region"],
            devices=given["devices"],
            processes=given["processes"],
            threads=given["threads"],
            timeout_s=given["timeout"],
            bit_accurate=given["numerics"] == "bit_accurate",
            debug=given["debug"],
            link_path=path.link if path else link,
            clients=given["clients"] if link else 0,
            guest_arena_bytes=path.arena_bytes if path else 0,
            guest=path,
        )
    except BaseException:
        if path is not None:
            path.close()
        raise
    opened = Session(core, described, given["numerics"], given["strict"], given["devices"], path)
    if given["engine"] == "sst" and given["sst_config"] is not None:
        check_served(opened, f"sst_config = {given['sst_config']!r}")
    return opened


def _check_processes(given: Mapping[str, Any], place: str) -> None:
    processes, devices = given["processes"], given["devices"]
    if processes == 1:
        return
    if processes > devices:
        raise Unsupported(
            f"{place} = {processes}, devices = {devices}: expected at least one device for each"
            " process"
        )
    if given["guest"]:
        raise Unsupported(f"{place} = {processes}: a guest reaches one engine; expected 1")
    if given["name"]:
        raise Unsupported(
            f"{place} = {processes}: who attaches to a session with a name reaches one engine;"
            " expected 1"
        )
    if given["engine"] == "sst" and given["sst_config"] is not None:
        raise Unsupported(
            f"{place} = {processes}: an SST configuration of your own has the devices of one"
            " simulation; expected 1"
        )


def _guest_path(share: str | None, link: str) -> GuestPath:
    from ._guest_path import GuestPath

    return GuestPath(share, link or None)


def current() -> Session:
    """The current session; opens a default one where there is none."""
    return session.face_of(_core.current_session())


def _open_default() -> _core.Session:
    opened = _open(dict.fromkeys(settings.SETTINGS), {})
    session.hold(opened)
    return opened.core


_core.set_session_opener(_open_default)
