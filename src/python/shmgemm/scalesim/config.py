"""SCALE-Sim's cfg file: array, dataflow, SRAM sizes and bandwidths.

An INI file as its `scale_config.py` reads it: keys in any case, keys nobody knows are ignored. What
older files lack and a run without stalls does not need has SCALE-Sim's own default here. Every
error names file and line, what was given and what is expected.
"""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import _files

DATAFLOWS = ("os", "ws", "is")
_MAX_ARRAY = 65536
_MAX_SRAM_KB = 1 << 40
_SECTION = re.compile(r"\[(?P<name>.+)\]")
_KEY = re.compile(r"(?P<name>.*?)\s*[=:]")


@dataclass(frozen=True)
class Architecture:
    """What a cfg says. SRAM sizes in kB of one-byte words; bandwidths in words per cycle.

    `user_bandwidth` is InterfaceBandwidth: False for CALC, which never stalls, True for USER. With
    USER reads are fetched at the `[layout]` bank bandwidths and writes at the first value of
    `Bandwidth`.
    """

    path: str
    run_name: str
    rows: int
    cols: int
    dataflow: str
    ifmap_kb: int
    filter_kb: int
    ofmap_kb: int
    user_bandwidth: bool
    ifmap_bandwidth: int
    filter_bandwidth: int
    ofmap_bandwidth: int


def read(path: str | Path) -> Architecture:
    """Parse and check a cfg.

    Raises:
        ValueError: a line that is no cfg, a missing key, a value outside its range, or a feature
        that
            has no closed form (sparsity; with USER also custom layouts and Ramulator traces).
        OSError: the file cannot be read.
    """
    with _files.named("cannot read", path):
        content = Path(path).read_bytes()
    cfg = _Cfg(str(path), content)
    user = cfg.choice("run_presets", "InterfaceBandwidth", ("USER", "CALC")) == "USER"
    cfg.refuse("sparsity", "SparsitySupport", "sparse layers are not modelled")
    if user:
        cfg.refuse("layout", "IfmapCustomLayout", "bank conflicts are not modelled")
        cfg.refuse("layout", "FilterCustomLayout", "bank conflicts are not modelled")
        cfg.refuse("run_presets", "UseRamulatorTrace", "DRAM traces are not modelled")
    return Architecture(
        path=str(path),
        run_name=cfg.folder("general", "run_name"),
        rows=cfg.number("architecture_presets", "ArrayHeight", _MAX_ARRAY),
        cols=cfg.number("architecture_presets", "ArrayWidth", _MAX_ARRAY),
        dataflow=cfg.choice("architecture_presets", "Dataflow", DATAFLOWS),
        ifmap_kb=cfg.number("architecture_presets", "IfmapSramSzkB", _MAX_SRAM_KB),
        filter_kb=cfg.number("architecture_presets", "FilterSramSzkB", _MAX_SRAM_KB),
        ofmap_kb=cfg.number("architecture_presets", "OfmapSramSzkB", _MAX_SRAM_KB),
        user_bandwidth=user,
        ifmap_bandwidth=cfg.number("layout", "IfmapSRAMBankBandwidth", _MAX_SRAM_KB, "10"),
        filter_bandwidth=cfg.number("layout", "FilterSRAMBankBandwidth", _MAX_SRAM_KB, "10"),
        ofmap_bandwidth=cfg.first_number("architecture_presets", "Bandwidth") if user else 0,
    )


class _Cfg:
    """The parsed file, with the line on which each key stands."""

    def __init__(self, path: str, content: bytes) -> None:
        self.path = path
        self.text = decode(path, content)
        self.parser = configparser.ConfigParser(interpolation=None)
        try:
            self.parser.read_string(self.text, path)
        except configparser.MissingSectionHeaderError as error:
            raise self.error(
                error.lineno, f"{error.line.strip()!r}: expected a section such as [general] first"
            ) from None
        except configparser.ParsingError as error:
            line = error.errors[0][0]
            given = self.text.splitlines()[line - 1].strip()
            raise self.error(line, f"{given!r}: expected 'key = value' or '[section]'") from None
        except configparser.DuplicateSectionError as error:
            raise self.error(error.lineno, f"[{error.section}]: section appears twice") from None
        except configparser.DuplicateOptionError as error:
            what = f"{error.option} in [{error.section}]: key appears twice"
            raise self.error(error.lineno, what) from None
        self.sections, self.lines = self._locate()

    def _locate(self) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        sections: dict[str, int] = {}
        lines: dict[tuple[str, str], int] = {}
        section = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if match := _SECTION.match(line):
                section = match["name"]
                sections[section] = number
            elif (match := _KEY.match(line)) and not line.startswith(("#", ";")):
                lines.setdefault((section, match["name"].strip().lower()), number)
        return sections, lines

    def error(self, line: int | None, what: str) -> ValueError:
        return ValueError(f"{self.path}:{line or 1}: {what}")

    def bad(self, section: str, key: str, value: str, expected: str) -> ValueError:
        line = self.lines.get((section, key.lower()))
        return self.error(line, f"{key} = {value!r} in [{section}]: expected {expected}")

    def get(self, section: str, key: str, default: str | None = None) -> str:
        value = self.parser.get(section, key, fallback=default)
        if value is not None:
            return value.strip()
        if section not in self.sections:
            end = len(self.text.splitlines())
            found = ", ".join(self.parser.sections()) or "none"
            raise self.error(end, f"no section [{section}], which has {key}; sections: {found}")
        close = difflib.get_close_matches(key.lower(), self.parser.options(section), n=1)
        hint = f"; did you mean it by {close[0]!r}?" if close else ""
        raise self.error(self.sections[section], f"no key {key} in [{section}]{hint}")

    def number(self, section: str, key: str, maximum: int, default: str | None = None) -> int:
        return self._whole(section, key, self.get(section, key, default), maximum)

    def first_number(self, section: str, key: str) -> int:
        """The first of a list; SCALE-Sim uses no other, but all must be numbers."""
        values = self.get(section, key).split(",")
        whole = [self._whole(section, key, value.strip(), _MAX_SRAM_KB) for value in values]
        return whole[0]

    def _whole(self, section: str, key: str, value: str, maximum: int) -> int:
        if not value.isascii() or not value.isdigit() or not 1 <= int(value[:30]) <= maximum:
            raise self.bad(section, key, value, f"a whole number from 1 to {maximum}")
        return int(value)

    def choice(self, section: str, key: str, choices: tuple[str, ...]) -> str:
        value = self.get(section, key)
        if value not in choices:
            raise self.bad(section, key, value, f"one of {', '.join(choices)}")
        return value

    def refuse(self, section: str, key: str, why: str) -> None:
        """A switch that must be off, or absent."""
        value = self.get(section, key, "False")
        is_off: Callable[[str], bool] = ("false", "no", "off", "0").__contains__
        if not is_off(value.lower()):
            raise self.bad(section, key, value, f"False: {why}")

    def folder(self, section: str, key: str) -> str:
        """A name for the folder of the reports, inside the one the caller chose."""
        value = self.get(section, key)
        if not value or value in (".", "..") or "/" in value or "\0" in value:
            raise self.bad(section, key, value, "a name for a folder, without '/'")
        return value


def decode(path: str, content: bytes) -> str:
    """The file's text; ValueError with the line of the first byte that is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise ValueError(f"{path}:{line}: byte 0x{byte:02x}: expected UTF-8 text") from None
