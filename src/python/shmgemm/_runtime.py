"""Where processes of one user find each other: a folder for guests and for sessions with a name.

It is $XDG_RUNTIME_DIR/shmgemm, or where there is none a folder of this user's in /tmp.
"""

from __future__ import annotations

import difflib
import os
import socket
import stat
import tempfile
from pathlib import Path

from .errors import ShmgemmError

_SUFFIX = ".sock"


def folder() -> Path:
    """The folder, this user's alone."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        path = Path(base) / "shmgemm"
    else:
        path = Path(tempfile.gettempdir()) / f"shmgemm-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise ShmgemmError(f"{path} is not a folder of this user's alone")
    return path


def socket_of(name: str) -> Path:
    """Where the engine of the session of that name listens."""
    return folder() / (name + _SUFFIX)


def session_names() -> list[str]:
    """Of the sessions that others can attach to, sorted."""
    return sorted(
        path.name.removesuffix(_SUFFIX) for path in folder().glob(f"*{_SUFFIX}") if listens(path)
    )


def listens(path: Path) -> bool:
    """Whether an engine does at that socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True


def existing_text(name: str) -> str:
    """What there is in place of a session of that name, for an error."""
    names = session_names()
    if not names:
        return "no session with a name is open"
    close = difflib.get_close_matches(name, names, n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}There are: {', '.join(names)}"
