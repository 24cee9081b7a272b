"""Timing models from outside the package: shared objects that register them, and how to build one.

The setting `plugins` names them; sessions hand them on to their engine, and commands that list or
time models load them into this process. A loaded plug-in stays until the process ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from . import _core, settings


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
            _core.load_plugin(str(path))
        except (FileNotFoundError, ValueError) as error:
            where = "" if found.origin == "argument" else f" ({found.origin})"
            raise type(error)(f"{error}{where}") from None
        paths.append(str(path))
    return paths


def cflags() -> str:
    """What a compiler must be told to build a plug-in: the standard, and where the headers are."""
    return f"-std=c++17 -I{Path(__file__).parent / 'include'}"
