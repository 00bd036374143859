# SPDX-License-Identifier: Apache-2.0
"""A small EFI program, laid out by hand."""

import struct
from collections.abc import Callable

import pytest

ALIGNMENT = 512


def make_efi(sections: dict[str, bytes], *, signatures: bytes = b"") -> bytes:
    """Return a PE32+ file with these sections, in this order."""
    optional = struct.pack("<HBBIII", 0x20B, 0, 0, 0, 0, 0).ljust(60, b"\0")
    headers = 0x40 + 24 + 240 + 40 * len(sections)
    headers += -headers % ALIGNMENT
    optional += struct.pack("<I", headers) + b"SUM!"  # size of the headers, checksum
    optional = optional.ljust(112, b"\0")
    table, body = b"", b""
    for name, data in sections.items():
        padded = data + bytes(-len(data) % ALIGNMENT)
        offset = headers + len(body)
        table += struct.pack(
            "<8sIIIIIIHHI", name.encode(), len(data), 0, len(padded), offset, *[0] * 5
        )
        body += padded
    directories = bytearray(16 * 8)
    struct.pack_into("<II", directories, 4 * 8, headers + len(body), len(signatures))
    start = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, 240, 0)
    head = start + coff + optional + bytes(directories) + table
    return head.ljust(headers, b"\0") + body + signatures


@pytest.fixture
def efi() -> Callable[..., bytes]:
    return make_efi
