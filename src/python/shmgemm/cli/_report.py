"""What a run leaves behind: text on the terminal; csv, trace and pictures in a folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _files
from .._tables import seconds_text

if TYPE_CHECKING:
    from ..profiling import Profile
    from ..session import Session


def folder(given: str | None, what: str, session: Session) -> Path:
    """The folder for the files, made: `given`, or ./out/WHAT-PRESET.

    Asked for before the run, so that a folder that cannot be made costs nobody an hour.
    """
    name = re.sub(r"[^\w.+=-]+", "_", f"{what}-{session.hardware.label}")
    path = Path(given) if given else Path("out") / name
    with _files.named("cannot make the folder", path):
        path.mkdir(parents=True, exist_ok=True)
    return path.absolute()  # a script may change the working directory


def write_files(profile: Profile, out: Path, name: str) -> dict[str, str]:
    """ops.csv, trace.json and the pictures; these only where matplotlib is installed.

    `name` says in the pictures what ran.
    """
    files = {
        "csv": str(profile.to_csv(out / "ops.csv")),
        "trace": str(profile.to_chrome_trace(out / "trace.json")),
    }
    try:
        from .. import plots
    except ImportError:
        print(
            "shmgemm: no roofline.png, timeline.png, layers.png: matplotlib is not installed"
            " (pip install matplotlib)",
            file=sys.stderr,
        )
        return files
    for draw in (plots.roofline, plots.timeline, plots.layers):
        kind = draw.__name__
        files[kind] = str(draw(profile, out / f"{kind}.png", name))
    return files


def print_profile(profile: Profile) -> None:
    print(profile.table())
    print(profile.coverage)
    print(f"total: {profile.cycles:,} cycles = {seconds_text(profile.simulated_s)} simulated")


def print_files(files: dict[str, str]) -> None:
    for path in files.values():
        print(f"wrote {path}")


def as_json(profile: Profile, files: dict[str, str], **more: Any) -> dict[str, Any]:
    return {**profile.to_dict(), **more, "files": files}
