"""Files that a user names: where the system refuses one, a sentence that says which and why.

"[Errno 21] Is a directory: '.'" becomes "hardware = '.': is a directory".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def named(what: str, path: str | Path) -> Iterator[None]:
    """Raise an OSError of the block again, of the same type, as `what 'path': reason`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        folder = Path(path).parent
        if isinstance(error, FileNotFoundError) and not folder.is_dir():
            reason = f"no folder {str(folder)!r}"
        told = type(error)(f"{what} {str(path)!r}: {reason}")
        told.errno = error.errno
        raise told from None
