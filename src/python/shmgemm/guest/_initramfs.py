"""cpio archives ("newc") as the kernel unpacks them: files, folders and symbolic links of root."""

from __future__ import annotations

from dataclasses import dataclass, field

_FOLDER = 0o040755
_FILE = 0o100000
_LINK = 0o120777
_CHARACTER_DEVICE = 0o020600


@dataclass
class Archive:
    """Entries in the order they are added; a folder must come before what is in it."""

    _parts: list[bytes] = field(default_factory=list)

    def folder(self, path: str) -> None:
        self._entry(path, _FOLDER, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._entry(path, _FILE | mode, content)

    def link(self, path: str, target: str) -> None:
        self._entry(path, _LINK, target.encode())

    def character_device(self, path: str, major: int, minor: int) -> None:
        self._entry(path, _CHARACTER_DEVICE, b"", (major, minor))

    def encoded(self) -> bytes:
        """The whole archive, padded so that another may follow it."""
        whole = b"".join(self._parts) + _encoded(0, "TRAILER!!!", 0, b"", (0, 0))
        return whole + bytes(-len(whole) % 512)

    def _entry(
        self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)
    ) -> None:
        number = len(self._parts) + 1
        self._parts.append(_encoded(number, path.lstrip("/"), mode, content, device))


def _encoded(number: int, name: str, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    text = name.encode() + b"\0"
    # inode, mode, uid, gid, links, time, size, its device, the device it is, name's size, checksum
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(text), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + text
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
