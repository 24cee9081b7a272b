"""Whether an engine has the hardware that a session was opened with."""

from __future__ import annotations

from . import _core
from . import hardware as _hardware
from .session import Session


def check_same(expected: _hardware.Hardware, found: _hardware.Hardware, who: str) -> None:
    if expected.digest == found.digest:
        return
    keys = sorted(expected.parameters.keys() | found.parameters.keys())
    differences = [
        f"{key} = {found.parameters.get(key)!r}, expected {expected.parameters.get(key)!r}"
        for key in keys
        if expected.parameters.get(key) != found.parameters.get(key)
    ]
    raise ValueError(f"{who} has other hardware than {expected.label}: {'; '.join(differences)}")


def check_served(session: Session, who: str) -> None:
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
            session.close()
            raise ValueError(
                f"{who} has {name} = {info[name]!r}, the session was opened with {wanted!r}"
            )
