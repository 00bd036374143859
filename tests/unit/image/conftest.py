# SPDX-License-Identifier: Apache-2.0
"""A firmware of some pages, laid out by hand as edk2 lays out OVMF."""

import struct
import uuid
from collections.abc import Callable, Sequence

import pytest

SIZE = 0x5000
HASHES_AT = 0x81_0C00
AP_START = 0x80_B004
SNP_SECTIONS = ((0x80_0000, 0x2000, 1), (0x80_D000, 0x1000, 2), (0x80_E000, 0x1000, 3))
HASHES_SECTION = (0x81_0000, 0x1000, 0x10)
TDX_SECTIONS = (
    (0x2000, 0x3000, 0xFFFF_D000, 0x3000, 0, 1),
    (0, 0x2000, 0xFFFF_B000, 0x2000, 1, 0),
    (0, 0, 0x80_9000, 0x2000, 2, 0),
    (0, 0, 0x81_0000, 0x1000, 3, 0),
)


def entry(guid: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le


def make_firmware(
    *,
    hashes_at: int = HASHES_AT,
    snp: Sequence[tuple[int, int, int]] = (*SNP_SECTIONS, HASHES_SECTION),
    tdx: Sequence[tuple[int, int, int, int, int, int]] = TDX_SECTIONS,
) -> bytes:
    """Return a firmware; the tables that it ends in point to its metadata."""
    content = bytearray(number % 251 for number in range(SIZE))
    sev = struct.pack("<4sIII", b"ASEV", 16 + 12 * len(snp), 1, len(snp))
    sev += b"".join(struct.pack("<III", *section) for section in snp)
    tdvf = struct.pack("<4sIII", b"TDVF", 16 + 32 * len(tdx), 1, len(tdx))
    tdvf += b"".join(struct.pack("<IIQQII", *section) for section in tdx)
    content[0x3000 : 0x3000 + len(sev)] = sev
    content[0x3800 : 0x3800 + len(tdvf)] = tdvf
    entries = [
        entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", AP_START)),
        entry("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", hashes_at, 0x400)),
        entry("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", SIZE - 0x3000)),
        entry("e47a6535-984a-4798-865e-4685a7bf8ec2", struct.pack("<I", SIZE - 0x3800)),
    ]
    table = b"".join(entries)
    footer = struct.pack("<H", len(table) + 18)
    table += footer + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    end = SIZE - 32
    content[end - len(table) : end] = table
    return bytes(content)


@pytest.fixture
def firmware() -> Callable[..., bytes]:
    return make_firmware
