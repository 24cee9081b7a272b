"""The ABI headers mean the same to C11, to C++ and to Python, and ask nothing of any of them."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

import pytest
from c_abi import C11, CPP17, SOURCES, compile_with

from shmgemm import abi, abi_link

HEADERS = [SOURCES / "abi" / name for name in ("shmgemm_abi.h", "shmgemm_link.h", "virtio_sst.h")]
Structure = type[ctypes.LittleEndianStructure]
STRUCTURES: dict[str, Structure] = {
    "shmgemm_command": abi.Command,
    "shmgemm_completion": abi.Completion,
    "shmgemm_report": abi.Report,
    "shmgemm_gemm_report": abi.GemmReport,
    "shmgemm_timeline_entry": abi.TimelineEntry,
    "shmgemm_info": abi.Info,
    "shmgemm_peer": abi.Peer,
    "shmgemm_arena": abi.Arena,
    "shmgemm_header": abi.Header,
    "shmgemm_queue_pair": abi.QueuePair,
    "shmgemm_control": abi.Control,
    "shmgemm_link_head": abi_link.LinkHead,
    "shmgemm_link_hello": abi_link.LinkHello,
    "shmgemm_link_lease": abi_link.LinkLease,
    "virtio_sst_device_counters": abi_link.DeviceCounters,
    "virtio_sst_config": abi_link.Config,
    "virtio_sst_request": abi_link.Request,
    "virtio_sst_response": abi_link.Response,
    "virtio_sst_compute_request": abi_link.ComputeRequest,
    "virtio_sst_compute_response": abi_link.ComputeResponse,
    "virtio_sst_transfer": abi_link.Transfer,
    "virtio_sst_configure": abi_link.ConfigureRequest,
    "virtio_sst_info_response": abi_link.InfoResponse,
    "virtio_sst_info": abi_link.DriverInfo,
    "virtio_sst_counters": abi_link.DriverCounters,
}
ENUMS: dict[str, type[IntEnum]] = {  # by what stands before their names in C
    "SHMGEMM_OP": abi.Op,
    "SHMGEMM_DTYPE": abi.Dtype,
    "SHMGEMM_STATUS": abi.Status,
    "SHMGEMM_PEER": abi.PeerState,
    "SHMGEMM_CONTROL": abi.ControlKind,
    "SHMGEMM_REPORT": abi.ReportKind,
    "SHMGEMM_ACTIVITY": abi.Activity,
    "SHMGEMM_CONFIGURE": abi.Configure,
    "SHMGEMM_ARENA": abi.ArenaState,
    "VIRTIO_SST": abi_link.Interrupts,
}
LINK_ENUMS = (abi_link.LinkKind, abi_link.LinkRole)  # of one prefix
CONSTANTS = {
    "SHMGEMM_MAGIC": abi.MAGIC,
    "SHMGEMM_ABI_MAJOR": abi.ABI_MAJOR,
    "SHMGEMM_ABI_MINOR": abi.ABI_MINOR,
    "SHMGEMM_MIN_REGION_BYTES": abi.MIN_REGION_BYTES,
    "SHMGEMM_PAGE_BYTES": abi.PAGE_BYTES,
    "SHMGEMM_HEAP_ALIGN": abi.HEAP_ALIGN,
    "SHMGEMM_BLOCK_ALIGN": abi.BLOCK_ALIGN,
    "SHMGEMM_LARGE_BLOCK_BYTES": abi.LARGE_BLOCK_BYTES,
    "SHMGEMM_MAX_QUEUE_PAIRS": abi.MAX_QUEUE_PAIRS,
    "SHMGEMM_MAX_PEERS": abi.MAX_PEERS,
    "SHMGEMM_ENGINE_PEER": abi.ENGINE_PEER,
    "SHMGEMM_MAX_ARENAS": abi.MAX_ARENAS,
    "SHMGEMM_MAX_ENGINES": abi.MAX_ENGINES,
    "SHMGEMM_RING_SLOTS": abi.RING_SLOTS,
    "SHMGEMM_QUEUE_PAIR_BYTES": abi.QUEUE_PAIR_BYTES,
    "SHMGEMM_FLUSH_EVERY": abi.FLUSH_EVERY,
    "SHMGEMM_REPORT_BYTES": abi.REPORT_BYTES,
    "SHMGEMM_LINK_MAGIC": abi_link.LINK_MAGIC,
    "SHMGEMM_LINK_TEXT_BYTES": abi_link.LINK_TEXT_BYTES,
    "SHMGEMM_LINK_MAX_BYTES": abi_link.LINK_MAX_BYTES,
    "SHMGEMM_LINK_NO_QUEUE_PAIR": abi_link.LINK_NO_QUEUE_PAIR,
    "VIRTIO_SST_DEVICE_ID": abi_link.DEVICE_ID,
    "VIRTIO_SST_PCI_VENDOR_ID": abi_link.PCI_VENDOR_ID,
    "VIRTIO_SST_PCI_DEVICE_ID": abi_link.PCI_DEVICE_ID,
    "VIRTIO_SST_QUEUE_SIZE": abi_link.QUEUE_SIZE,
    "VIRTIO_SST_MAX_STREAM": abi_link.MAX_STREAM,
    "VIRTIO_SST_PAYLOAD_BYTES": abi_link.PAYLOAD_BYTES,
    "VIRTIO_SST_MAX_TRANSFER_BYTES": abi_link.MAX_TRANSFER_BYTES,
    "VIRTIO_SST_IOC_INFO": abi_link.IOC_INFO,
    "VIRTIO_SST_IOC_COUNTERS": abi_link.IOC_COUNTERS,
}


def fields(
    structure: type[ctypes.Structure] | type[ctypes.Union],
) -> Iterator[tuple[str, int, int]]:
    """(name, offset, bytes) of each field, those of anonymous members included."""
    anonymous = getattr(structure, "_anonymous_", ())
    for name, kind in structure._fields_:  # type: ignore[misc]
        offset = getattr(structure, name).offset
        if name in anonymous:
            for inner, inner_offset, size in fields(kind):
                yield inner, offset + inner_offset, size
        else:
            yield name, offset, ctypes.sizeof(kind)


def python_layout() -> dict[str, int]:
    layout: dict[str, int] = {}
    for name, structure in STRUCTURES.items():
        layout[name] = ctypes.sizeof(structure)
        for field, offset, size in fields(structure):
            layout[f"{name}.{field}"] = offset
            layout[f"{name}.{field} bytes"] = size
    for prefix, enum in ENUMS.items():
        layout |= {f"{prefix}_{member.name}": member.value for member in enum}
    for enum in LINK_ENUMS:
        layout |= {f"SHMGEMM_LINK_{member.name}": member.value for member in enum}
    layout |= {f"SHMGEMM_FLAG_{name}": flag for name, flag in abi.Flag.__members__.items()}
    return layout | CONSTANTS


def is_constant(name: str) -> bool:
    return name.startswith(("SHMGEMM_", "VIRTIO_SST_"))


def printer_source() -> str:
    lines = []
    for name, structure in STRUCTURES.items():
        lines.append(f'SHOW("{name}", sizeof(struct {name}));')
        for field, _, _ in fields(structure):
            lines.append(f'SHOW("{name}.{field}", offsetof(struct {name}, {field}));')
            lines.append(f'SHOW("{name}.{field} bytes", sizeof(((struct {name}*)0)->{field}));')
    lines += [f'SHOW("{name}", {name});' for name in python_layout() if is_constant(name)]
    body = "\n  ".join(lines)
    return f"""#include "abi/shmgemm_link.h"
#include "abi/virtio_sst.h"
#include <stdio.h>
#define SHOW(name, value) printf("%s=%llu\\n", name, (unsigned long long)(value))
int main(void) {{
  {body}
  return 0;
}}
"""


def compiled_layout(compiler: list[str], suffix: str, folder: Path) -> dict[str, int]:
    source = folder / f"layout.{suffix}"
    source.write_text(printer_source())
    compile_with(compiler, [source, "-o", folder / "layout"])
    printed = subprocess.run(
        [folder / "layout"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    pairs = (line.rsplit("=", 1) for line in printed.splitlines())
    return {name: int(value) for name, value in pairs}


@pytest.mark.parametrize(("compiler", "suffix"), [(C11, "c"), (CPP17, "cpp")], ids=["c11", "cpp17"])
def test_compilers_and_python_read_the_same_layout(
    compiler: list[str], suffix: str, tmp_path: Path
) -> None:
    compiled = compiled_layout(compiler, suffix, tmp_path)
    assert compiled == python_layout()


@pytest.mark.parametrize("name", STRUCTURES)
def test_fields_cover_every_byte(name: str) -> None:
    """No padding, so no byte of a process's memory leaks and no field is missing in Python."""
    structure = STRUCTURES[name]
    covered: set[int] = set()
    for _, offset, size in fields(structure):
        covered |= set(range(offset, offset + size))
    assert covered == set(range(ctypes.sizeof(structure)))


def test_every_name_of_the_headers_is_in_python() -> None:
    text = "".join(header.read_text() for header in HEADERS)
    helpers = {"SHMGEMM_OFFSET_IS", "SHMGEMM_SIZE_IS"}
    helpers |= {"SHMGEMM_ABI_H", "SHMGEMM_LINK_H", "VIRTIO_SST_H"}
    in_enums = set(re.findall(r"\b((?:SHMGEMM|VIRTIO_SST)_[A-Z0-9_]+)\s*=", text))
    defined = set(re.findall(r"#define ((?:SHMGEMM|VIRTIO_SST)_[A-Z0-9_]+)", text)) - helpers
    counts = {
        f"SHMGEMM_{name}"
        for name in (
            "OP_COUNT",
            "DTYPE_COUNT",
            "LEVELS",
            "OPERANDS",
            "ACTIVITIES",
            "CONFIGURE_COUNT",
        )
    }
    indices = {name for name in in_enums if re.match(r"SHMGEMM_(LEVEL|OPERAND)_", name)}
    assert (in_enums | defined) - counts - indices == {
        name for name in python_layout() if is_constant(name)
    }
    declared = set(re.findall(r"^struct (\w+) \{", text, re.MULTILINE))
    assert declared == set(STRUCTURES)


@pytest.mark.parametrize("compiler", [[*C11, "-x", "c"], [*CPP17, "-x", "c++"]], ids=["c", "c++"])
def test_headers_and_validator_compile_without_a_warning(
    compiler: list[str], tmp_path: Path
) -> None:
    twice = tmp_path / "twice.c"
    headers = ["shmgemm_validate.h", *(header.name for header in HEADERS)]
    twice.write_text("".join(f'#include "abi/{name}"\n' for name in headers * 2))
    for source in (twice, SOURCES / "abi" / "shmgemm_validate.c"):
        compile_with(compiler, ["-c", source, "-o", tmp_path / "out.o"])


def test_validator_uses_no_floating_point_and_no_library(tmp_path: Path) -> None:
    source = (SOURCES / "abi" / "shmgemm_validate.c").read_text()
    code = re.sub(r"/\*.*?\*/|\"[^\"]*\"", "", source, flags=re.DOTALL)
    assert re.findall(r"#include\s+(.*)", source) == ['"shmgemm_validate.h"']
    assert not re.search(r"\b(float|double|malloc|memcpy|printf)\b", code)
    assert not re.search(r"[^/*]/[^/*]|%", code), "division: 32-bit kernels have none for 64 bits"
