"""Things built once: each in a folder under $XDG_CACHE_HOME/shmgemm named by a hash of its inputs.

A lock lets several processes ask for the same one; a marker says that it is complete. Deleting a
folder, or all of them, is always safe.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ..errors import ShmgemmError

_MARKER = "complete"
_TAIL_LINES = 15
_looking = ContextVar("looking", default=False)


class NotBuilt(ShmgemmError):
    """What was looked for is not here; the message names it."""


@contextmanager
def looking() -> Iterator[None]:
    """Within this block made() builds nothing, waits for nobody and raises NotBuilt."""
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


def root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shmgemm"


def digest(*parts: object) -> str:
    """12 hex digits of files' and folders' contents and of whatever else is given."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in _files(part):
                state.update(f"{file.relative_to(part.parent)}\0".encode())
                state.update(hashlib.sha256(file.read_bytes()).digest())
        else:
            state.update(f"{part!r}\0".encode())
    return state.hexdigest()[:12]


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def made(name: str, key: str, make: Callable[[Path], None], *, resume: bool = False) -> Path:
    """The folder `name-key`, made by `make(folder)` where it is not complete.

    With `resume`, what an interrupted make has left is kept for the next one.
    """
    folder = root() / f"{name}-{key}"
    if (folder / _MARKER).exists():
        return folder
    if _looking.get():
        raise NotBuilt(f"{name} is not built")
    with _locked(folder.with_name(folder.name + ".lock")):
        if not (folder / _MARKER).exists():
            if not resume:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            make(folder)
            (folder / _MARKER).touch()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    each_line: Callable[[str], None] | None = None,
) -> str:
    """Run a command to its end; its output. Raises ShmgemmError with the last lines if it fails."""
    words = [str(word) for word in command]
    lines = []
    try:
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ShmgemmError(f"cannot run {words[0]}: {error.strerror}") from None
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if each_line is not None:
                    each_line(line)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        tail = "".join(lines[-_TAIL_LINES:])
        raise ShmgemmError(f"{' '.join(words)} ended with {process.returncode}:\n{tail}")
    return "".join(lines)
