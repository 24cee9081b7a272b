"""The documentation is true to the code: links resolve, programs run, tables are complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shmgemm import cli, errors, hardware, settings
from shmgemm._tables import COLUMNS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_README = [*PAGES, ROOT / "README.md"]
NAMES = [page.name for page in WITH_README]


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    content = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", content, re.M | re.S)


def build(page: Path) -> None:
    """A page with a plug-in: its source under the name that its shell commands give it."""
    (source,), (commands,) = blocks(page, "cpp"), blocks(page, "sh")
    (name,) = re.findall(r"\w+\.cpp", commands)
    Path(name).write_text(source, encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    strict = commands.replace("g++ ", "g++ -Wall -Wextra -Werror ")
    subprocess.run(["sh", "-euc", strict], env={**os.environ, "PATH": path}, check=True)


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def cells(page: str, column: int = 0) -> list[str]:
    """The names in backquotes in one column of a page's tables."""
    rows = [line.split("|")[1 + column] for line in text(page).splitlines() if line[:2] == "| "]
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("page", WITH_README, ids=NAMES)
def test_links_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES[:-1])
def test_programs_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    if blocks(page, "cpp"):
        build(page)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)


def test_the_index_names_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", text("index.md")))
    assert linked == {page.name for page in PAGES} - {"index.md"}


def test_the_csv_columns_are_the_real_ones() -> None:
    section = text("profile.md").split("## csv")[1].split("## Trace")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert [name for row in rows for name in re.findall("`([^`]+)`", row)] == list(COLUMNS)


def test_every_setting_is_listed_with_its_variable() -> None:
    listed = dict(zip(cells("configuration.md"), cells("configuration.md", 1), strict=True))
    assert listed == {name: setting.variable for name, setting in settings.SETTINGS.items()}


def test_every_error_is_listed() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert set(cells("errors.md")) == defined - {"ShmgemmError"}
    for name in defined - {"ShmgemmError"}:
        row = next(line for line in text("errors.md").splitlines() if f"| `{name}` |" in line)
        bases = {base.__name__ for base in getattr(errors, name).__bases__} - {"ShmgemmError"}
        assert set(re.findall(r"`([^`]+)`", row.split("|")[2])) == bases


def test_every_preset_is_listed_with_its_array_and_clock() -> None:
    section = text("timing-models.md").split("## Presets")[1]
    for name in hardware.presets():
        device = hardware.load(name)
        row = next(line for line in section.splitlines() if line.startswith(f"| `{name}`"))
        values = device.parameters
        machine = (
            f"{values['cores']} cores, {device.model}"
            if device.model == "simt"
            else f"{values['rows']}x{values['cols']}, {values['dataflow']}"
        )
        assert machine in row.replace("\N{MULTIPLICATION SIGN}", "x")
        assert values["clock"] == row.split("|")[3].replace(" ", "")
    assert len(re.findall(r"^\| `\w+`", section, re.M)) == len(hardware.presets())


def test_every_command_is_listed() -> None:
    commands = {name.split()[0] for name in cells("cli.md") if not name.startswith("-")}
    assert commands == set(cli.COMMANDS)


def test_every_folder_of_the_map_exists() -> None:
    folders = [name for name in cells("architecture.md") if name.endswith("/")]
    assert len(folders) >= 10
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_every_text_of_the_troubleshooting_page_is_in_the_sources() -> None:
    """In pieces, as programs put them together: around names, values and what the system says."""
    suffixes = (".py", ".cpp", ".c", ".h")
    folders = ("src", "guest", "kernel_module", "qemu_device")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*")]
    sources = "".join(file.read_text(encoding="utf-8") for file in files if file.suffix in suffixes)
    sources = re.sub(r'"\s*f?"', "", sources)  # a string in several pieces
    told_by_others = {"Connection refused", "No such file or directory", "status 5"}
    rows = [line for line in text("troubleshooting.md").splitlines() if line.startswith("| `")]
    assert len(rows) >= 50
    for row in rows:
        told = row.split("`")[1]
        pieces = re.split(r"…|: | \(|\)|/dev/sst0|qemu-system-riscv64|riscv64-linux-gnu-", told)
        unknown = {piece.strip(" :") for piece in pieces} - told_by_others
        assert not [piece for piece in unknown if piece not in sources], told
