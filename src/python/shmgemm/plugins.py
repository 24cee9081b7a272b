"""Timing models from outside the package: shared objects that register them, and how to build one.

The setting `plugins` names them; sessions hand them on to their engine, and commands that list or
time models load them into this process. A loaded plug-in stays until the process ends.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from . import _core, settings
from .engine import default_engine_path

_CHECK_S = 10.0
_checked: set[str] = set()


def load(given: str | Path | Iterable[str | Path] | None = None) -> list[str]:
    """Load plug-ins into this process, so that their models can be used like those built in.

    Args:
        given: a path, or several; None for those of `SHMGEMM_PLUGINS` or the settings file.

    Returns:
        Their absolute paths.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no shared object, has no model, was built against another version of the
            model interface, or has a model with a name that is taken.
    """
    found = settings.resolve_with_origin("plugins", given)
    paths = []
    for plugin in found.value:
        path = Path(plugin).absolute()
        try:
            if not path.exists():
                raise FileNotFoundError(f'plug-in "{path}": no such file')
            _check(str(path))
            _core.load_plugin(str(path))
        except (FileNotFoundError, ValueError) as error:
            where = "" if found.origin == "argument" else f" ({found.origin})"
            raise type(error)(f"{error}{where}") from None
        paths.append(str(path))
    return paths


def _check(path: str) -> None:
    """Load it in a process of its own first: static objects that throw end the one they are in.

    What is wrong with the file otherwise `_core.load_plugin` says.
    """
    if path in _checked:
        return
    try:
        ended = subprocess.run(
            [default_engine_path(), "--check-plugin", path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CHECK_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f'plug-in "{path}": loading it did not end within {_CHECK_S:g} s; its static objects'
            " must do no more than register models"
        ) from None
    if ended.returncode < 0:
        name = signal.Signals(-ended.returncode).name
        raise ValueError(
            f'plug-in "{path}": loading it ended a process with {name}; its static objects must'
            f" not throw or crash. It said: {' '.join(ended.stderr.split()) or 'nothing'}"
        )
    _checked.add(path)


def cflags() -> str:
    """What a compiler must be told to build a plug-in: the standard, and where the headers are."""
    return f"-std=c++17 -I{Path(__file__).parent / 'include'}"
