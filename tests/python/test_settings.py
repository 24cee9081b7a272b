"""Argument before environment before file before default, and a clear error for each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shmgemm import settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine: empty folder, no variables, no home."""
    for setting in settings.SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.delenv("SHMGEMM_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config_home"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def configure(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(body, encoding="utf-8")
    return path


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.resolve("threads", None, 7) == 7
    configure(Path("shmgemm.toml"), "[session]\nthreads = 6\n")
    assert settings.resolve("threads", None, 7) == 6
    monkeypatch.setenv("SHMGEMM_THREADS", "5")
    assert settings.resolve("threads", None, 7) == 5
    assert settings.resolve("threads", 4, 7) == 4


def test_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.resolve_with_origin("devices").origin == "default"
    configure(Path("shmgemm.toml"), "[session]\ndevices = 2\n")
    assert settings.resolve_with_origin("devices").origin == "shmgemm.toml"
    monkeypatch.setenv("SHMGEMM_DEVICES", "3")
    assert settings.resolve_with_origin("devices").origin == "SHMGEMM_DEVICES"
    assert settings.resolve_with_origin("devices", 4).origin == "argument"


def test_false_and_zero_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMGEMM_STRICT", "1")
    monkeypatch.setenv("SHMGEMM_THREADS", "2")
    assert settings.resolve("strict", False) is False
    assert settings.resolve("threads", 0) == 0


def test_own_defaults() -> None:
    found = {name: settings.resolve(name) for name in settings.SETTINGS}
    assert found == {
        "engine": "embedded",
        "guest": False,
        "hardware": "tpu_v3",
        "numerics": "fast",
        "devices": 1,
        "processes": 1,
        "region": 256 << 20,
        "threads": 0,
        "strict": False,
        "timeout": 5.0,
        "debug": False,
        "plugins": (),
        "engine_path": None,
        "sst_config": None,
        "share": None,
        "name": None,
        "clients": 1,
    }


def test_files_in_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(tmp_path / "config_home" / "shmgemm" / "config.toml", "[session]\nthreads = 1\n")
    assert settings.resolve("threads") == 1
    configure(Path("shmgemm.toml"), "[session]\nthreads = 2\n")
    assert settings.resolve("threads") == 2
    named = configure(tmp_path / "named.toml", "[session]\nthreads = 3\n")
    monkeypatch.setenv("SHMGEMM_CONFIG", str(named))
    assert settings.resolve("threads") == 3
    assert settings.config_path() == named


def test_without_xdg_the_home_folder_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    configure(tmp_path / ".config" / "shmgemm" / "config.toml", "[session]\nthreads = 9\n")
    assert settings.resolve("threads") == 9


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMGEMM_CONFIG", "absent.toml")
    with pytest.raises(FileNotFoundError, match=r"SHMGEMM_CONFIG = 'absent\.toml'"):
        settings.resolve("threads")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("engine", "sst", "sst"),
        ("guest", "yes", True),
        ("guest", "0", False),
        ("strict", "TRUE", True),
        ("strict", "off", False),
        ("strict", "", False),
        ("hardware", "tpu_v2", "tpu_v2"),
        ("devices", "255", 255),
        ("region", "64MiB", 64 << 20),
        ("region", "0.5GiB", 1 << 29),
        ("region", "67108864", 64 << 20),
        ("threads", "0", 0),
        ("timeout", "2.5", 2.5),
        ("debug", "debug", True),
        ("debug", "off", False),
        ("plugins", "/a.so:b.so", ("/a.so", "b.so")),
        ("plugins", "", ()),
        ("engine_path", "/opt/engine", "/opt/engine"),
    ],
)
def test_environment_is_parsed(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(settings.SETTINGS[name].variable, text)
    found = settings.resolve(name)
    assert found == value
    assert type(found) is type(value)


def test_the_log_variable_switches_debug() -> None:
    assert settings.SETTINGS["debug"].variable == "SHMGEMM_LOG"


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("engine", "gem5"),
        ("guest", "maybe"),
        ("hardware", ""),
        ("devices", "0"),
        ("devices", "256"),
        ("devices", "two"),
        ("region", "64Mib"),
        ("region", "64MiB/s"),
        ("region", "0"),
        ("region", "-1"),
        ("threads", "-1"),
        ("threads", "1.5"),
        ("timeout", "0"),
        ("timeout", "nan"),
        ("timeout", "inf"),
        ("timeout", "5 s"),
        ("debug", "verbose"),
        ("engine_path", ""),
    ],
)
def test_a_bad_value_names_its_origin_and_what_is_legal(
    monkeypatch: pytest.MonkeyPatch, name: str, bad: str
) -> None:
    setting = settings.SETTINGS[name]
    with pytest.raises(ValueError) as caught:
        settings.resolve(name, bad)
    assert str(caught.value) == f"argument {name} = {bad!r}: expected {setting.legal}"
    monkeypatch.setenv(setting.variable, bad)
    with pytest.raises(ValueError) as caught:
        settings.resolve(name)
    assert (
        str(caught.value) == f"environment {setting.variable} = {bad!r}: expected {setting.legal}"
    )
    monkeypatch.delenv(setting.variable)
    path = configure(Path("shmgemm.toml"), f"[session]\n{name} = {bad!r}\n")
    with pytest.raises(ValueError) as caught:
        settings.resolve(name)
    assert str(caught.value) == f"{path}: [session] {name} = {bad!r}: expected {setting.legal}"


@pytest.mark.parametrize(("name", "bad"), [("threads", 1.5), ("devices", True), ("timeout", True)])
def test_arguments_of_another_type(name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"argument {name} = {bad}"):
        settings.resolve(name, bad)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("[session]\nthread = 1\n", ["thread", "did you mean threads", "engine_path"]),
        ("threads = 1\n", ["threads", "[session]"]),
        ("[sesion]\nthreads = 1\n", ["sesion", "[session]"]),
        ("session = 1\n", ["session", "a table"]),
        ("[session\n", ["not TOML"]),
    ],
)
def test_a_bad_file_is_named(body: str, parts: list[str]) -> None:
    path = configure(Path("shmgemm.toml"), body)
    with pytest.raises(ValueError) as caught:
        settings.resolve("engine")
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_paths_in_a_file_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = '[session]\nhardware = "mine.toml"\nengine_path = "bin/engine"\n'
    path = configure(tmp_path / "elsewhere" / "named.toml", body)
    monkeypatch.setenv("SHMGEMM_CONFIG", str(path))
    assert settings.resolve("hardware") == str(path.parent / "mine.toml")
    assert settings.resolve("engine_path") == str(path.parent / "bin" / "engine")


def test_plugins_are_one_path_or_several() -> None:
    for given in ("a.so:b.so", ["a.so", "b.so"], (Path("a.so"), "b.so")):
        assert settings.resolve("plugins", given) == ("a.so", "b.so")
    assert settings.resolve("plugins", Path("a:b.so")) == ("a:b.so",)
    configure(Path("shmgemm.toml"), '[session]\nplugins = ["a.so", "/b.so"]\n')
    assert settings.resolve("plugins") == ("a.so", "/b.so")
    for bad in (3, [""], [None]):
        with pytest.raises(ValueError, match=r"argument plugins = .*: expected paths"):
            settings.resolve("plugins", bad)


def test_hardware_may_be_a_path_or_a_mapping() -> None:
    assert settings.resolve("hardware", Path("a.toml")) == Path("a.toml")
    assert settings.resolve("hardware", {"rows": 4}) == {"rows": 4}
    configure(Path("shmgemm.toml"), "[session.hardware]\nrows = 8\n")
    assert settings.resolve("hardware") == {"rows": 8}
