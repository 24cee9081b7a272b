"""The records of links and of the virtio-sst device as ctypes see them, as `abi` has the region's.

From `shmgemm_link.h` and `virtio_sst.h`; a test compares them with what compilers make of those.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum

from .abi import _U8, _U16, _U32, _U64, RING_SLOTS

LINK_MAGIC = int.from_bytes(b"SSHMLNK1", "little")
LINK_TEXT_BYTES = 512
LINK_MAX_BYTES = RING_SLOTS * 128
LINK_NO_QUEUE_PAIR = 0xFFFFFFFF

DEVICE_ID = 63
PCI_VENDOR_ID = 0x1AF4
PCI_DEVICE_ID = 0x107F
QUEUE_SIZE = 256
MAX_STREAM = 0xFFFF
PAYLOAD_BYTES = 4080
MAX_TRANSFER_BYTES = PAYLOAD_BYTES - 16


class LinkKind(IntEnum):
    HELLO = 1
    COMMANDS = 2
    COMPLETIONS = 3
    REQUEST = 4
    RESPONSE = 5
    FAILED = 6
    LEASE = 7


class LinkRole(IntEnum):
    ENGINE = 1
    QEMU = 2
    SERVER = 3
    CLIENT = 4


class Interrupts(IntEnum):
    POLLED = 0
    MSIX = 1
    LINE = 2


class LinkHead(ctypes.LittleEndianStructure):
    _fields_ = [("kind", _U32), ("bytes", _U32)]


class LinkHello(ctypes.LittleEndianStructure):
    _fields_ = [
        ("magic", _U64),
        ("abi_major", _U16),
        ("abi_minor", _U16),
        ("role", _U32),
        ("index", _U32),
        ("devices", _U32),
        ("generation", _U32),
        ("reserved", _U32),
        ("region_bytes", _U64),
        ("region_id", _U64 * 2),
        ("clock_hz", _U64),
    ]


class LinkLease(ctypes.LittleEndianStructure):
    _fields_ = [("queue_pair", _U32), ("clients", _U32), ("reserved", _U64)]


class DeviceCounters(ctypes.LittleEndianStructure):
    _fields_ = [
        ("commands", _U64),
        ("requests", _U64),
        ("completed", _U64),
        ("no_device", _U64),
        ("bad_chains", _U64),
        ("bytes_to_engine", _U64),
        ("bytes_from_engine", _U64),
        ("sojourn_ns", _U64),
    ]


class Config(ctypes.LittleEndianStructure):
    _fields_ = [
        ("abi_major", _U16),
        ("abi_minor", _U16),
        ("index", _U32),
        ("connected", _U32),
        ("devices", _U32),
        ("generation", _U32),
        ("reserved", _U32),
        ("region_bytes", _U64),
        ("region_id", _U64 * 2),
        ("clock_hz", _U64),
        ("counters", DeviceCounters),
    ]


class Request(ctypes.LittleEndianStructure):
    _fields_ = [
        ("type", _U32),
        ("flags", _U32),
        ("id", _U64),
        ("user", _U64),
        ("payload", _U8 * PAYLOAD_BYTES),
    ]


class Response(ctypes.LittleEndianStructure):
    _fields_ = [
        ("status", _U32),
        ("reserved", _U32),
        ("id", _U64),
        ("user", _U64),
        ("result", _U64),
        ("payload", _U8 * PAYLOAD_BYTES),
    ]


class ComputeRequest(ctypes.LittleEndianStructure):
    _fields_ = [("compute_units", _U64), ("latency_model", _U32), ("reserved", _U32)]


class ComputeResponse(ctypes.LittleEndianStructure):
    _fields_ = [("cycles", _U64), ("timestamp", _U64)]


class Transfer(ctypes.LittleEndianStructure):
    _fields_ = [("address", _U64), ("bytes", _U32), ("reserved", _U32)]


class ConfigureRequest(ctypes.LittleEndianStructure):
    _fields_ = [("parameter", _U32), ("reserved", _U32), ("value", _U64)]


class InfoResponse(ctypes.LittleEndianStructure):
    _fields_ = [
        ("version", _U32),
        ("capabilities", _U32),
        ("max_compute_units", _U64),
        ("memory_bytes", _U64),
    ]


class DriverInfo(ctypes.LittleEndianStructure):
    _fields_ = [
        ("abi_major", _U16),
        ("abi_minor", _U16),
        ("index", _U32),
        ("connected", _U32),
        ("devices", _U32),
        ("generation", _U32),
        ("interrupts", _U32),
        ("region_bytes", _U64),
        ("region_id", _U64 * 2),
        ("clock_hz", _U64),
        ("reserved", _U64 * 9),
    ]


class DriverCounters(ctypes.LittleEndianStructure):
    _fields_ = [
        ("commands", _U64),
        ("requests", _U64),
        ("completions", _U64),
        ("responses", _U64),
        ("dropped", _U64),
        ("nonsense", _U64),
        ("bytes_written", _U64),
        ("bytes_read", _U64),
        ("sojourn_ns", _U64),
        ("polls", _U64),
        ("rejected", _U64),
        ("reserved", _U64 * 5),
        ("device", DeviceCounters),
    ]


def _ior(number: int, record: type[ctypes.Structure]) -> int:
    """Linux's _IOR of the driver's letter."""
    return 2 << 30 | ctypes.sizeof(record) << 16 | 0xB7 << 8 | number


IOC_INFO = _ior(0, DriverInfo)
IOC_COUNTERS = _ior(1, DriverCounters)
