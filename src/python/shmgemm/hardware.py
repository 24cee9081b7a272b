"""Hardware descriptions: a preset, a TOML file or a mapping, with overrides, checked by the core.

TOML is read here alone; the core sees a flat map of strings. An error names file, key, value given
and the legal range.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from . import _core, _files

DEFAULT_PRESET = "tpu_v3"
_TEXT_KEYS = ("description", "source", "note")
_LIST_KEYS = ("calibrated", "assumed")


@dataclass(frozen=True)
class Hardware:
    """One kind of simulated device.

    `parameters` holds every parameter of the device and its model in one canonical spelling;
    `digest` is a short hash of them, equal exactly for equal hardware. `source` cites where the
    numbers come from, `path` is the file they were read from, `overrides` what the caller changed.
    `calibrated` names the parameters that were fitted to measurements, `assumed` those that no
    specification gives; all others come from the source.
    """

    name: str
    parameters: dict[str, str]
    source: str | None
    digest: str
    description: str = ""
    note: str = ""
    clock_hz: int = 0
    path: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    calibrated: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The timing model's name."""
        return self.parameters["model"]

    @property
    def label(self) -> str:
        """The name, with what was overridden: "tpu_v3 + rows=64"."""
        changes = ", ".join(f"{key}={value}" for key, value in self.overrides.items())
        return f"{self.name} + {changes}" if changes else self.name


@dataclass(frozen=True)
class _Description:
    name: str
    values: dict[str, str]
    path: str | None = None
    source: str | None = None
    description: str = ""
    note: str = ""
    calibrated: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where an error about it is found: the file, or what there is instead of one."""
        return self.path if self.path is not None else f"hardware {self.name!r}"


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files(__package__) / "presets"
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    )


def load(
    hardware: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    place: str = "hardware",
) -> Hardware:
    """A checked description.

    Args:
        hardware: a preset's name, the path of a TOML file (anything with a folder in it or ending
            in `.toml`), a mapping of parameters, or None for the default preset. A plug-in's
            model is known once `plugins.load` has loaded it.
        overrides: parameters that replace those of `hardware`. An overriding `model` also drops
            what it does not know.
        place: where `hardware` was given, for errors.

    Raises:
        ValueError: an unknown preset or key, a wrong unit, a value outside the legal range.
        OSError: a path without a readable file.
    """
    base = _describe(DEFAULT_PRESET if hardware is None else hardware, place)
    parameters = _check(base.values, base.place)
    changes: dict[str, str] = {}
    if overrides:
        place = f"overrides of {base.name!r}"
        changes = {key: _as_text(key, value, place) for key, value in overrides.items()}
        parameters = _check(_merge(base.values, changes), place)
    return Hardware(
        name=base.name,
        parameters=parameters,
        source=base.source,
        digest=_digest(parameters),
        description=base.description,
        note=base.note,
        clock_hz=_core.parse_quantity("clock", parameters["clock"], "Hz"),
        path=base.path,
        overrides=changes,
        calibrated=base.calibrated,
        assumed=base.assumed,
    )


def with_foreign_model(hardware: Hardware, model: str) -> Hardware:
    """The same clock, and a model of which no more than its name is known here."""
    parameters = {"model": model, "clock": hardware.parameters["clock"]}
    return Hardware(model, parameters, None, _digest(parameters), clock_hz=hardware.clock_hz)


def of_parameters(parameters: Mapping[str, str]) -> Hardware:
    """What an engine says of itself; the preset it is, or "attached" where it is none."""
    digest = _digest(parameters)
    for name in presets():
        if (preset := load(name)).digest == digest:
            return preset
    clock_hz = _core.parse_quantity("clock", parameters["clock"], "Hz")
    return Hardware("attached", dict(parameters), None, digest, clock_hz=clock_hz)


def _describe(hardware: str | Path | Mapping[str, Any], place: str) -> _Description:
    if isinstance(hardware, Mapping):
        custom = "hardware 'custom'"
        values = {str(key): _as_text(key, value, custom) for key, value in hardware.items()}
        return _Description("custom", values)
    if isinstance(hardware, Path) or hardware.endswith(".toml") or "/" in hardware:
        path = Path(hardware).expanduser()
        with _files.named(f"{place} =", path):
            content = path.read_bytes()
        return _parse(content, path.stem, str(path))
    if hardware not in presets():
        raise ValueError(f"{place} = {hardware!r}: no such preset; {_suggest(hardware, presets())}")
    entry = resources.files(__package__) / "presets" / f"{hardware}.toml"
    return _parse(entry.read_bytes(), hardware, str(entry))


def _parse(data: bytes, name: str, path: str) -> _Description:
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    known = [*_TEXT_KEYS, *_LIST_KEYS, "hardware"]
    for key, value in content.items():
        if key not in known:
            hint = _suggest(key, known)
            raise ValueError(
                f"{path}: {key} = {value!r}: unknown key; parameters stand in [hardware]; {hint}"
            )
        _check_kind(path, key, value, content.get("hardware"))
    if "hardware" not in content:
        raise ValueError(f"{path}: no table [hardware]")
    values = {key: _as_text(key, value, path) for key, value in content["hardware"].items()}
    return _Description(
        name,
        values,
        path,
        source=content.get("source"),
        description=content.get("description", ""),
        note=content.get("note", "").strip(),
        calibrated=tuple(content.get("calibrated", ())),
        assumed=tuple(content.get("assumed", ())),
    )


def _check_kind(path: str, key: str, value: object, parameters: object) -> None:
    if key in _LIST_KEYS:
        names = parameters if isinstance(parameters, dict) else {}
        if not isinstance(value, list) or any(name not in names for name in value):
            raise ValueError(
                f"{path}: {key} = {value!r}: expected a list of keys of [hardware]: {[*names]}"
            )
        return
    expected = dict if key == "hardware" else str
    if not isinstance(value, expected):
        kind = "a table" if expected is dict else "a string"
        raise ValueError(f"{path}: {key} = {value!r}: expected {kind}")


def _as_text(key: object, value: object, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(
            f"{place}: {key} = {value!r}: expected a whole number, or a string such as '940MHz'"
        )
    return str(value)


def _merge(base: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """`changes` over `base`, without the keys of `base` that a new model rules out."""
    merged = {**base, **changes}
    if "model" in changes:
        for key in base.keys() - changes.keys() - {"model", "clock"}:
            if not _accepts(merged["model"], key, merged[key]):
                del merged[key]
    return merged


def _accepts(model: str, key: str, value: str) -> bool:
    """Whether the model declares the parameter and, where it is a choice, has that one."""
    for info in _core.models():
        if info.name == model:
            return any(p.name == key and value in (p.choices or [value]) for p in info.parameters)
    return True


def _check(values: dict[str, str], place: str) -> dict[str, str]:
    try:
        return _core.check_hardware(values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _digest(parameters: Mapping[str, str]) -> str:
    canonical = json.dumps(dict(parameters), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _suggest(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}There are: {', '.join(known)}"
