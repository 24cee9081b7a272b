"""Sessions: one region, its engines, and the settings they were opened with.

`open()` makes its session the current one; an op without a session opens a default one. A session
belongs to the process that opened it: a forked child opens its own.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _core, _runtime, plugins, settings, sst
from . import hardware as _hardware
from .errors import DeviceLost, Unsupported

if TYPE_CHECKING:
    from ._guest_path import GuestPath
    from .guest import Guest

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_on_open: list[Callable[[Session], None]] = []


class Session:
    """An open simulated device: `with shmgemm.open(...) as session: ...`.

    `core` is the compiled session, `hardware` the checked description, `numerics` "fast" or
    "bit_accurate", `strict` whether a device error is raised where an op would otherwise fall back
    to the CPU, `devices` how many there are.
    """

    def __init__(
        self,
        core: _core.Session,
        described: _hardware.Hardware,
        numerics: str,
        strict: bool,
        devices: int,
        path: GuestPath | None = None,
    ) -> None:
        self.core = core
        self.hardware = described
        self.numerics = numerics
        self.strict = strict
        self.devices = devices
        self._path = path
        self._former: Session | None = None
        self._pid = os.getpid()
        _sessions.add(self)
        for callback in _on_open:
            callback(self)

    @property
    def clock_hz(self) -> int:
        """Of the simulated device: seconds are cycles ÷ this."""
        return self.hardware.clock_hz

    @property
    def guest(self) -> Guest | None:
        """The machine that commands go through, or None: `session.guest.exec(["dmesg"])`."""
        return None if self._path is None else self._path.machine

    @property
    def closed(self) -> bool:
        """True also in a child of the process that opened it."""
        return self.core.closed

    @property
    def engine_pids(self) -> list[int]:
        """The process of each engine, 0 where none runs; device d is served by d % len()."""
        return self.core.engine_pids

    def stats(self) -> dict[str, Any]:
        """Totals since the session was opened; cycles are of the device's clock."""
        return {
            **self.core.stats(),
            "clock_hz": self.clock_hz,
            "preset": self.hardware.name,
            "numerics": self.numerics,
        }

    def info(self, device: int = 0) -> dict[str, Any]:
        """What the engine says of itself and of one device."""
        return self.core.info(device)

    def reset(self, device: int = 0) -> None:
        """Zero one device's counters; simulated time goes on."""
        self.core.reset(device)

    def close(self) -> None:
        """End the engine; tensors in the region stay valid. Closing twice is no error.

        Other threads that computed on it get SessionClosed from their op, or from their next one.
        """
        was_current = _core.current_session_or_none() is self.core
        self._end()  # first: who finds no current session looks whether its own was closed
        if was_current and _core.current_session_or_none() is None:
            _make_current(None)

    def _end(self) -> None:
        self.core.close()
        if self._path is not None and self._pid == os.getpid():
            self._path.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The former first: a thread that computes meanwhile must find one of them.
        if self._former is not None and not self._former.closed:
            _make_current(self._former)
        self.close()

    def __repr__(self) -> str:
        pids = [str(pid) for pid in self.core.engine_pids if pid]
        state = "closed" if self.closed else "connected"
        if pids and not self.closed:
            state = f"engine pid{'s' * (len(pids) > 1)} {', '.join(pids)}"
        return f"<shmgemm.Session {self.hardware.label}, {state}>"


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
    former = current_or_none()
    session = _open(
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
    session._former = former
    _make_current(session)
    return session


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
    session = Session(core, described, given["numerics"], given["strict"], given["devices"], path)
    if given["engine"] == "sst" and given["sst_config"] is not None:
        _check_served(session, f"sst_config = {given['sst_config']!r}")
    return session


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
    former = current_or_none()
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
        _check_served(session, f"the engine behind {server}")
    session._former = former
    _make_current(session)
    return session


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
    former = current_or_none()
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
            _check_same(expected, described, f"the session {str(session)!r}")
            described = expected
    except BaseException:
        core.close()
        raise
    attached = Session(core, described, given["numerics"], given["strict"], core.devices)
    attached._former = former
    _make_current(attached)
    return attached


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


def _check_same(expected: _hardware.Hardware, found: _hardware.Hardware, who: str) -> None:
    if expected.digest == found.digest:
        return
    keys = sorted(expected.parameters.keys() | found.parameters.keys())
    differences = [
        f"{key} = {found.parameters.get(key)!r}, expected {expected.parameters.get(key)!r}"
        for key in keys
        if expected.parameters.get(key) != found.parameters.get(key)
    ]
    raise ValueError(f"{who} has other hardware than {expected.label}: {'; '.join(differences)}")


def _check_served(session: Session, who: str) -> None:
    """Whether the devices of an engine that we did not describe are those we speak of.

    A model that a SubComponent brings is known to SST alone; what stays to compare is the clock.
    """
    info = session.core.info()
    if "." in info["model"] and info["model"] not in {model.name for model in _core.models()}:
        session.hardware = _hardware.with_foreign_model(session.hardware, info["model"])
    for name, wanted in (
        ("devices", session.devices),
        ("model", session.hardware.model),
        ("clock_hz", session.clock_hz),
    ):
        if info[name] != wanted:
            session._end()
            raise ValueError(
                f"{who} has {name} = {info[name]!r}, the session was opened with {wanted!r}"
            )


def default_engine_path() -> str:
    """Of the engine that was installed with this package."""
    return str(Path(__file__).parent / "bin" / "shmgemm-engine")


def current() -> Session:
    """The current session; opens a default one where there is none."""
    return _face(_core.current_session())


def current_or_none() -> Session | None:
    """The current session, or None where no op has needed one yet."""
    core = _core.current_session_or_none()
    return None if core is None else _face(core)


def open_sessions() -> list[Session]:
    """Those of this process that were not closed, in no order."""
    return [session for session in list(_sessions) if not session.closed]


def on_open(callback: Callable[[Session], None]) -> None:
    """Call `callback` with every session opened from now on."""
    _on_open.append(callback)


_current: Session | None = None  # held here: a program need not keep what open() returned


def _make_current(session: Session | None) -> None:
    global _current
    _current = session
    _core.set_current_session(None if session is None else session.core)


def _face(core: _core.Session) -> Session:
    if _current is not None and _current.core is core:
        return _current
    return next(session for session in _sessions if session.core is core)


def _open_default() -> _core.Session:
    global _current
    _current = _open(dict.fromkeys(settings.SETTINGS), {})
    return _current.core


_GRACE_S = 0.02  # in which other threads come to their next op


def _close_all() -> None:
    _core.set_program_ending()
    if threading.active_count() > 1 and _sessions:
        time.sleep(_GRACE_S)
    for session in list(_sessions):
        if session._pid == os.getpid():
            session._end()


_core.set_session_opener(_open_default)
atexit.register(_close_all)
