"""Any script, unmodified, with its linear layers on the device: each model is offloaded in place
at its first call, whoever built it and wherever.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import traceback
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _report
from ._options import describe, open_session

if TYPE_CHECKING:
    from ..profiling import Profile


@contextmanager
def _offloading() -> Iterator[dict[str, str]]:
    """Offloads every module, with all it contains, just before its first call.

    Yields the modules that stay on the CPU, with the reason, as they are met.

    The outermost module that is called is met first, so layers get their path from the whole
    model; a layer that a model gains later is met at its own first call. A forward hook would be
    too late for a lone layer: torch looks `forward` up before it runs hooks.
    """
    from torch.nn import Module

    from ..offload import offload_

    seen: weakref.WeakSet[Module] = weakref.WeakSet()
    left: dict[str, str] = {}
    plain_call = Module.__call__

    def call(self: Module, *args: Any, **kwargs: Any) -> Any:
        if self not in seen:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a loss function has no linear layer
                report = offload_(self)
            left.update({name or type(self).__name__: why for name, why in report.left.items()})
            seen.update(self.modules())
        return plain_call(self, *args, **kwargs)

    Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield left
    finally:
        Module.__call__ = plain_call  # type: ignore[method-assign]


@contextmanager
def _as_main(script: Path, arguments: list[str]) -> Iterator[None]:
    """sys.argv and sys.path as `python script.py ...` would set them."""
    argv, path = sys.argv, sys.path.copy()
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _run_script(script: Path, arguments: list[str]) -> int:
    try:
        with _as_main(script, arguments):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return _exit_code(end)
    except Exception as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_frame.f_code.co_filename != str(script):
            frame = frame.tb_next
        traceback.print_exception(type(error), error, frame or error.__traceback__)
        return 1
    return 0


def _write_files(prof: Profile, out: Path, name: str, out_was_given: bool) -> dict[str, str]:
    """The run's files; none where nothing was simulated, as there is nothing to put into them."""
    if prof.records:
        return _report.write_files(prof, out, name)
    print(
        "shmgemm: nothing was simulated: no linear layer was called; no files were written",
        file=sys.stderr,
    )
    if not out_was_given:
        with suppress(OSError):  # an earlier run may have left files there
            out.rmdir()
    return {}


def run(args: argparse.Namespace) -> int:
    script = Path(args.target)
    if not script.is_file():
        raise FileNotFoundError(f"{args.target}: no such script, and not a model; models: minilm")
    from ..profiling import profile

    with open_session(args) as session:
        print(describe(session, args), file=sys.stderr)
        out = _report.folder(args.out, script.stem, session)
        stdout = sys.stderr if args.json else sys.stdout
        with redirect_stdout(stdout), _offloading() as left, profile() as prof:
            code = _run_script(script, args.arguments)
        files = _write_files(prof, out, script.name, bool(args.out))
    if args.json:
        print(json.dumps(_report.as_json(prof, files, exit_code=code, left_on_cpu=left), indent=2))
    else:
        if prof.records:
            _report.print_profile(prof)
        else:
            print(prof.coverage)
        for name, why in left.items():
            print(f"left on the CPU: {name}: {why}")
        _report.print_files(files)
    return code
