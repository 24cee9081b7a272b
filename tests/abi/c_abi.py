"""Builds, with the system's compilers, what the ABI tests look at: one harness for all of them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from shmgemm import abi

SOURCES = Path(__file__).resolve().parents[2] / "src" / "cpp"
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
C11 = ["cc", "-std=c11", "-pedantic", *WARNINGS]
CPP17 = ["c++", "-std=c++17", *WARNINGS]


class Limits(ctypes.Structure):
    _fields_ = [
        ("heap_begin", ctypes.c_uint64),
        ("heap_end", ctypes.c_uint64),
        ("generation", ctypes.c_uint32),
        ("devices", ctypes.c_uint32),
    ]


def compile_with(compiler: list[str], arguments: list[str | Path]) -> str:
    command = [*compiler, f"-I{SOURCES}", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"
    return result.stdout


def load_validator(folder: Path) -> ctypes.CDLL:
    """The validator alone, linked against nothing: an undefined symbol is an error here."""
    library = folder / "validate.so"
    flags = ["-O1", "-ffreestanding", "-nostdlib", "-shared", "-fPIC", "-Wl,-z,defs"]
    source = SOURCES / "abi" / "shmgemm_validate.c"
    compile_with(C11, [*flags, source, "-o", library])
    validator = ctypes.CDLL(str(library))
    validator.shmgemm_validate_command.argtypes = [
        ctypes.POINTER(abi.Command),
        ctypes.POINTER(Limits),
    ]
    validator.shmgemm_validate_completion.argtypes = [
        ctypes.POINTER(abi.Completion),
        ctypes.POINTER(Limits),
    ]
    validator.shmgemm_validate_header.argtypes = [ctypes.POINTER(abi.Header), ctypes.c_uint64]
    validator.shmgemm_status_text.restype = ctypes.c_char_p
    validator.shmgemm_status_text.argtypes = [ctypes.c_uint32]
    return validator
