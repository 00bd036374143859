# SPDX-License-Identifier: Apache-2.0
"""MRTD of a TDX guest, and a firmware for it that starts our kernel."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sevsnpmeasure.ovmf import OVMF

from cocos.errors import FormatError

_PAGE: Final = 4096
_CHUNK: Final = 256
_EXTEND: Final = 1
"""Attribute MR.EXTEND: the content is measured, too, not only where it is."""

# Intel, "TDX Virtual Firmware Design Guide", §11: the offset from the end of the file
# stands in the table of GUIDs; there, a head of 16 bytes and entries of 32.
_METADATA_GUID = "e47a6535-984a-4798-865e-4685a7bf8ec2"
_HEAD = struct.Struct("<4sIII")
_SECTION = struct.Struct("<IIQQII")
_TYPES = range(4)  # code, configuration, hand-off block, temporary memory

# UEFI Platform Initialization, volume 3: the head of a firmware volume; edk2's variable
# store: GUID, size, format, state, reserved.
_VOLUME_MAGIC = b"_FVH"
_STORE_HEAD = 28


@dataclass(frozen=True, slots=True)
class _Section:
    address: int
    content: bytes
    pages: int
    measured: bool


def mrtd(firmware: Path) -> bytes:
    """Return the measurement of a guest that starts from a firmware.

    KVM adds a section's pages in order (TDH.MEM.PAGE.ADD) and, where the attribute says
    so, measures each after it is added (TDH.MR.EXTEND). Every operation goes into one
    SHA-384 as a block of 128 bytes: name, and at 16 the address; a chunk's content follows.

    Raises:
        FormatError: no firmware for TDX.
    """
    digest = hashlib.sha384()
    for section in _sections(firmware):
        for number in range(section.pages):
            at = number * _PAGE
            digest.update(_block(b"MEM.PAGE.ADD", section.address + at))
            if section.measured:
                page = section.content[at : at + _PAGE].ljust(_PAGE, b"\0")
                for offset in range(0, _PAGE, _CHUNK):
                    digest.update(_block(b"MR.EXTEND", section.address + at + offset))
                    digest.update(page[offset : offset + _CHUNK])
    return digest.digest()


def _block(name: bytes, address: int) -> bytes:
    return (name.ljust(16, b"\0") + struct.pack("<Q", address)).ljust(128, b"\0")


def _sections(firmware: Path) -> Iterator[_Section]:
    try:
        ovmf = OVMF(str(firmware))
        data: bytes = ovmf.data()
        (distance,) = struct.unpack("<I", ovmf.table_item(_METADATA_GUID))
        at = len(data) - distance
        magic, _, version, count = _HEAD.unpack_from(data, at)
        if magic != b"TDVF" or version != 1:
            raise FormatError(f"{firmware.name} has metadata for TDX of an unknown form")
        for number in range(count):
            offset, size, address, memory, kind, attributes = _SECTION.unpack_from(
                data, at + _HEAD.size + number * _SECTION.size
            )
            if kind not in _TYPES or attributes & ~_EXTEND or memory % _PAGE or size > memory:
                raise FormatError(f"{firmware.name} has a section for TDX of an unknown kind")
            content = data[offset : offset + size]
            yield _Section(address, content, memory // _PAGE, bool(attributes & _EXTEND))
    except (KeyError, RuntimeError, struct.error) as error:
        raise FormatError(f"{firmware.name} is no firmware for TDX") from error


def without_variables(firmware: bytes) -> bytes:
    """Return a firmware whose store of variables is empty, as it comes from edk2's build.

    Debian's file has Microsoft's keys in it, and so starts signed programs only. Our
    kernel image is unsigned: who trusts it knows its measurement. Variables are not part
    of MRTD.

    Raises:
        FormatError: the file does not begin with a store of variables.
    """
    head = int.from_bytes(firmware[48:50], "little")
    size = int.from_bytes(firmware[head + 16 : head + 20], "little")
    if firmware[40:44] != _VOLUME_MAGIC or not _STORE_HEAD <= size <= len(firmware) - head:
        raise FormatError("the firmware does not begin with its variables")
    start, end = head + _STORE_HEAD, head + size
    return firmware[:start] + b"\xff" * (end - start) + firmware[end:]
