"""Settings of a session: argument, then environment, then TOML file, then default.

The file is the one `SHMGEMM_CONFIG` names, else `./shmgemm.toml`, else
`$XDG_CONFIG_HOME/shmgemm/config.toml`; its table `[session]` holds the keys of `SETTINGS`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _core, _files, abi

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class Setting:
    """One setting; `parse` turns what was given (text, a TOML or a Python value) into its type."""

    name: str
    meaning: str
    legal: str
    parse: Callable[[Any], Any]
    default: Any
    variable: str


@dataclass(frozen=True)
class Resolved:
    """A value, its origin ("argument", a variable's name, a file's path or "default"), its place.

    The place is how an error names it: "environment SHMGEMM_HARDWARE".
    """

    value: Any
    origin: str
    place: str


def _parse_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError


def _parse_log(value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() == "debug":
        return True
    return _parse_bool(value)


def _parse_whole(minimum: int, maximum: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(value)
        if not minimum <= number <= maximum:
            raise ValueError
        return number

    return parse


def _parse_seconds(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    seconds = float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError
    return seconds


def _parse_bytes(value: Any) -> int:
    if isinstance(value, str) and not value.strip().isdigit():
        return _core.parse_quantity("region", value, "bytes", 1)
    return _parse_whole(1, 2**63 - 1)(value)


def _parse_engine(value: Any) -> str:
    if value not in ("embedded", "sst"):
        raise ValueError
    return str(value)


def _parse_numerics(value: Any) -> str:
    if value not in ("fast", "bit_accurate"):
        raise ValueError
    return str(value)


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", value):
        raise ValueError
    return value


def _parse_hardware(value: Any) -> Any:
    if isinstance(value, (Path, Mapping)) or (isinstance(value, str) and value):
        return value
    raise ValueError


def _parse_path(value: Any) -> str:
    if isinstance(value, (str, Path)) and str(value):
        return str(Path(value).expanduser())
    raise ValueError


def _parse_paths(value: Any) -> tuple[str, ...]:
    """A string has paths as PATH has them; what is no string or path is an iterable of those."""
    if isinstance(value, str):
        value = [part for part in value.split(os.pathsep) if part]
    elif isinstance(value, Path):
        value = [value]
    return tuple(_parse_path(part) for part in value)


def _setting(
    name: str,
    default: Any,
    meaning: str,
    legal: str,
    parse: Callable[[Any], Any],
    variable: str | None = None,
) -> Setting:
    return Setting(name, meaning, legal, parse, default, variable or f"SHMGEMM_{name.upper()}")


_YES_NO = "true or false"
SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        _setting("engine", "embedded", "what simulates", "embedded or sst", _parse_engine),
        _setting("guest", False, "go through a guest's kernel", _YES_NO, _parse_bool),
        _setting(
            "hardware", "tpu_v3", "the device", "a preset, a TOML file or a table", _parse_hardware
        ),
        _setting(
            "numerics",
            "fast",
            "the order of additions: any, or the array's",
            "fast or bit_accurate",
            _parse_numerics,
        ),
        _setting("devices", 1, "how many", "a whole number from 1 to 255", _parse_whole(1, 255)),
        _setting(
            "processes",
            1,
            "engines that serve the devices",
            f"a whole number from 1 to {abi.MAX_ENGINES}",
            _parse_whole(1, abi.MAX_ENGINES),
        ),
        _setting(
            "region", 256 << 20, "shared memory", "bytes, or a size such as 256MiB", _parse_bytes
        ),
        _setting(
            "threads",
            0,
            "of each engine; 0: one per CPU, shared among them",
            "a whole number from 0 to 1024",
            _parse_whole(0, 1024),
        ),
        _setting("strict", False, "raise instead of falling back", _YES_NO, _parse_bool),
        _setting("timeout", 5.0, "seconds without a heartbeat", "above 0", _parse_seconds),
        _setting("debug", False, "log each command", "debug or off", _parse_log, "SHMGEMM_LOG"),
        _setting(
            "plugins", (), "timing models of one's own", "paths, or a list of them", _parse_paths
        ),
        _setting("engine_path", None, "the engine's executable", "a path", _parse_path),
        _setting(
            "name",
            None,
            "under which other processes attach",
            "1 to 64 letters, digits, '.', '_' or '-', the first no '.' or '-'",
            _parse_name,
        ),
        _setting(
            "clients",
            1,
            "other processes that may attach at once to a session with a name",
            "a whole number from 1 to 7",
            _parse_whole(1, 7),
        ),
        _setting("share", None, "a folder at /mnt/shared in the guest", "a path", _parse_path),
        _setting("sst_config", None, "SST configuration of one's own", "a path", _parse_path),
    )
}


def resolve(name: str, argument: Any = None, default: Any = None) -> Any:
    """The value of setting `name`.

    An `argument` of None was not given; a `default` of None is the setting's own.

    Raises:
        ValueError: naming the origin (argument, variable, file), the value and what is legal.
    """
    return resolve_with_origin(name, argument, default).value


def resolve_with_origin(name: str, argument: Any = None, default: Any = None) -> Resolved:
    """As `resolve`, and where the value came from."""
    setting = SETTINGS[name]
    if argument is not None:
        place = f"argument {name}"
        return Resolved(_parse(setting, argument, place), "argument", place)
    if setting.variable in os.environ:
        text, place = os.environ[setting.variable], f"environment {setting.variable}"
        return Resolved(_parse(setting, text, place), setting.variable, place)
    path = config_path()
    if path is not None:
        table = _read(path)
        if name in table:
            place = f"{path}: [session] {name}"
            value = _parse(setting, table[name], place)
            return Resolved(_relative_to(path, setting, value), str(path), place)
    return Resolved(setting.default if default is None else default, "default", f"default {name}")


def config_path() -> Path | None:
    """The settings file in effect, or None. A named file that is missing is an error."""
    named = os.environ.get("SHMGEMM_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"environment SHMGEMM_CONFIG = {named!r}: no such file")
        return path
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for path in (Path("shmgemm.toml"), config_home / "shmgemm" / "config.toml"):
        if path.is_file():
            return path
    return None


def _parse(setting: Setting, value: Any, place: str) -> Any:
    try:
        return setting.parse(value)
    except (ValueError, TypeError):
        raise ValueError(f"{place} = {value!r}: expected {setting.legal}") from None


def _relative_to(config: Path, setting: Setting, value: Any) -> Any:
    """Paths in a settings file are relative to its folder."""
    is_file = setting.name == "hardware" and isinstance(value, str) and value.endswith(".toml")
    if is_file or setting.name in ("engine_path", "sst_config", "share"):
        return str(config.parent / Path(value).expanduser())
    if setting.name == "plugins":
        return tuple(str(config.parent / path) for path in value)
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        with _files.named("settings file", path):
            content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    for key in content:
        if key != "session":
            raise ValueError(f"{path}: unknown key {key!r}; settings stand in the table [session]")
    table = content.get("session", {})
    if not isinstance(table, dict):
        raise ValueError(f"{path}: session = {table!r}: expected a table [session]")
    for key, value in table.items():
        if key not in SETTINGS:
            close = difflib.get_close_matches(key, SETTINGS, n=2)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise ValueError(
                f"{path}: [session] {key} = {value!r}: unknown setting; "
                f"{hint}There are: {', '.join(SETTINGS)}"
            )
    return table
