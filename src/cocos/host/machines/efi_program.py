# SPDX-License-Identifier: Apache-2.0
"""EFI programs of a few bytes, for VMs that shall boot and do next to nothing."""

import struct
from collections.abc import Mapping

_MACHINE_X86_64 = 0x8664
_EXECUTABLE, _PE32_PLUS, _EFI_APPLICATION = 0x22E, 0x20B, 10
_CODE, _DATA = 0x60000020, 0x40000040
_PAGE, _SECTOR = 0x1000, 0x200
_DIRECTORIES = 16
_SMALLEST = 0x2000  # QEMU takes the first sectors for a kernel's set-up code and wants more


def build(code: bytes, sections: Mapping[str, bytes] | None = None) -> bytes:
    """Return a program for x86-64 as a PE file.

    Args:
        code: Instructions that run at any address; its first is the entry.
        sections: Name → content of sections beside it.
    """
    parts = [(".text", _CODE, code)]
    parts += [(name, _DATA, content) for name, content in (sections or {}).items()]
    optional = 112 + 8 * _DIRECTORIES
    end = _PAGE * (len(parts) + 1)
    headers = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0"
    headers += struct.pack("<HHIIIHH", _MACHINE_X86_64, len(parts), 0, 0, 0, optional, _EXECUTABLE)
    headers += struct.pack("<H2xIIIIIQII", _PE32_PLUS, _SECTOR, 0, 0, _PAGE, _PAGE, 0, _PAGE, 512)
    headers += struct.pack("<16xIIIHH", end, _SECTOR, 0, _EFI_APPLICATION, 0)
    headers += struct.pack("<32xII", 0, _DIRECTORIES) + bytes(8 * _DIRECTORIES)
    body = b""
    for number, (name, flags, content) in enumerate(parts):
        stored = content.ljust(-(-len(content) // _SECTOR) * _SECTOR, b"\0")
        headers += struct.pack(
            "<8sIIII12xI",
            name.encode("ascii"),
            len(content),
            _PAGE * (number + 1),
            len(stored),
            _SECTOR + len(body),
            flags,
        )
        body += stored
    return (headers.ljust(_SECTOR, b"\0") + body).ljust(_SMALLEST, b"\0")
